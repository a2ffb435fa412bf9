"""Supervised training with only the labelled examples: of the network at random weights, or of the trained encoder."""

import copy
import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_zoo.data.order import epoch_order
from ssl_zoo.evaluators.base import EvalContext, Features, frozen
from ssl_zoo.evaluators.pixels import to_pixels
from ssl_zoo.evaluators.proportion import Proportion

MIN_TO_CHOOSE = 5
"""Labels per class from which on a rate is chosen."""


class Scratch:
    """Supervised training of image networks: cross-entropy, AdamW, and the first of the data's own training views.

    Args:
        steps: optimizer steps, the same for any number of labels; few examples are repeated more often, in new views.
        batch_size: examples per step.
        lr: peak learning rate, reached after a tenth of the steps; from there it falls to 0 as a half cosine. If there
            are several, one is chosen on a fifth of the labelled examples where every class has 5, else the first.
        weight_decay: of AdamW.
        draws: how many samples of the labels to train on; probes can afford more of them.
    """

    def __init__(self, steps: int, batch_size: int, lr: float | list[float], weight_decay: float, draws: int):
        """Keeps the settings.

        Raises:
            ValueError: when there are no steps, fewer than 2 draws or examples in a batch (for BatchNorm), or a rate
                that is not positive.
        """
        rates = lr if isinstance(lr, list) else [lr]
        if not rates or min(rates) <= 0:
            raise ValueError(f"evaluators.few_labels.scratch.lr={lr}: give one or more positive rates")
        for key, value, minimum in (("steps", steps, 1), ("batch_size", batch_size, 2), ("draws", draws, 2)):
            if value < minimum:
                raise ValueError(f"evaluators.few_labels.scratch.{key}={value}: give at least {minimum}")
        self.steps = steps
        self.batch_size = batch_size
        self.rates = rates
        self.weight_decay = weight_decay
        self.draws = draws

    def accuracy(self, context: EvalContext, untrained: nn.Module, train: Features, test: Features) -> Proportion:
        """Trains a copy of `untrained` and a linear layer on top; equal calls give an equal result.

        Args:
            context: the context of the evaluation.
            untrained: the encoder with random weights.
            train: plain views of images, flattened (`EvalContext.inputs`), to train on.
            test: the same of the test split.

        Returns:
            Accuracy on `test`.
        """
        return self._try(context, untrained, train, test, self.choose(context, untrained, train))

    def choose(self, context: EvalContext, untrained: nn.Module, train: Features) -> float:
        """The rate that is best on a fifth of `train`, the first of equals; arguments as for `accuracy`."""
        fewest = int(train.y.unique(return_counts=True)[1].min())
        if len(self.rates) == 1 or fewest < MIN_TO_CHOOSE:
            return self.rates[0]
        held = _every_fifth(train.y)
        rest, validation = (Features(*(part[rows] for part in train)) for rows in (~held, held))
        scores = [self._try(context, untrained, rest, validation, rate) for rate in self.rates]
        return self.rates[scores.index(max(scores))]

    def _try(
        self, context: EvalContext, untrained: nn.Module, train: Features, test: Features, rate: float
    ) -> Proportion:
        torch.manual_seed(0)
        head = nn.Linear(context.train.x.shape[1], context.data.facts["num_classes"])
        model = nn.Sequential(copy.deepcopy(untrained), head).to(context.device)
        self._fit(model, context, train, rate)
        with frozen(model), context.precision():
            logits = [model(x.to(context.device)).cpu() for x in _images(context, test.x).split(context.batch_size)]
        return Proportion.of(torch.cat(logits).argmax(dim=1) == test.y)

    def _fit(self, model: nn.Module, context: EvalContext, train: Features, rate: float) -> None:
        count = len(train.y)
        # ---- The examples as images in [0, 1], and the order to train in ----
        images = to_pixels(context.data.facts, _images(context, train.x)).to(context.device)
        labels, indices = train.y.to(context.device), train.indices.to(context.device)
        epochs = torch.arange(self.steps * self.batch_size) // count
        orders = [epoch_order(count, 0, epoch) for epoch in range(int(epochs[-1]) + 1)]
        order = torch.from_numpy(np.concatenate(orders)[: len(epochs)]).to(context.device)

        # ---- Training ----
        optimizer = torch.optim.AdamW(
            model.parameters(), lr=rate, betas=(0.9, 0.95), weight_decay=self.weight_decay, fused=True
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, self._rate)
        model.train()
        for rows, epoch in zip(
            order.split(self.batch_size), epochs.to(context.device).split(self.batch_size), strict=True
        ):
            view = context.data.views(images[rows], indices[rows], epoch, seed=0)[0]
            with context.precision():
                logits = model(view)
            optimizer.zero_grad()
            F.cross_entropy(logits.float(), labels[rows]).backward()
            optimizer.step()
            schedule.step()

    def _rate(self, step: int) -> float:
        progress = (step + 1) / self.steps
        return min(progress / 0.1, (1 + math.cos(math.pi * max(progress - 0.1, 0) / 0.9)) / 2)


def _every_fifth(y: Tensor) -> Tensor:
    """Every fifth example of each class, (N,) bool."""
    held = torch.zeros(len(y), dtype=torch.bool)
    for label in y.unique():
        held[(y == label).nonzero().squeeze(1)[4::5]] = True
    return held


def _images(context: EvalContext, x: Tensor) -> Tensor:
    """Flattened views (N, D) as images (N, C, S, S)."""
    size = context.data.facts["image_size"]
    return x.view(len(x), context.data.facts["in_chans"], size, size)
