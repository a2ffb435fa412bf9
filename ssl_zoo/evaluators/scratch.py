"""The rival of a pretrained encoder: the same network, trained from scratch with only the labelled examples."""

import copy
import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_zoo.data.order import epoch_order
from ssl_zoo.evaluators.base import EvalContext, Features, frozen
from ssl_zoo.evaluators.proportion import Proportion


class Scratch:
    """Supervised training of image networks: cross-entropy, AdamW, and the first of the data's own training views.

    steps, batch_size: the budget, the same for any number of labels; few examples come by more often, in new views.
    lr: the peak rate, reached after a tenth of the steps; from there it falls to 0 as a half cosine.
    draws: how many draws of the labels to train on; probes can afford more of them.
    """

    def __init__(self, steps: int, batch_size: int, lr: float, weight_decay: float, draws: int):
        """Raises: ValueError when there are no steps, or fewer than 2 draws or examples in a batch (for BatchNorm)."""
        for key, value, least in (("steps", steps, 1), ("batch_size", batch_size, 2), ("draws", draws, 2)):
            if value < least:
                raise ValueError(f"evaluators.few_labels.scratch.{key}={value}: give at least {least}")
        self.steps, self.batch_size, self.lr, self.weight_decay = steps, batch_size, lr, weight_decay
        self.draws = draws

    def accuracy(self, context: EvalContext, untrained: nn.Module, train: Features, test: Features) -> Proportion:
        """Accuracy on `test` of a copy of `untrained` and a linear layer on top, trained on `train`.

        x of both: plain views of images, flattened (`EvalContext.inputs`). Draws are keyed: equal calls give an equal
        number.
        """
        torch.manual_seed(0)
        head = nn.Linear(context.train.x.shape[1], context.data.facts["num_classes"])
        model = nn.Sequential(copy.deepcopy(untrained), head).to(context.device)
        self._fit(model, context, train)
        with frozen(model), context.precision():
            logits = [model(x.to(context.device)).cpu() for x in _images(context, test.x).split(context.batch_size)]
        return Proportion((torch.cat(logits).argmax(dim=1) == test.y).double().mean().item(), len(test.y))

    def _fit(self, model: nn.Module, context: EvalContext, train: Features) -> None:
        facts, count = context.data.facts, len(train.y)
        mean, std = (torch.tensor(facts[key]).view(-1, 1, 1) for key in ("mean", "std"))
        images = (_images(context, train.x) * std + mean).clamp(0, 1).to(context.device)
        labels, indices = train.y.to(context.device), train.indices.to(context.device)
        epochs = torch.arange(self.steps * self.batch_size) // count
        orders = [epoch_order(count, 0, epoch) for epoch in range(int(epochs[-1]) + 1)]
        order = torch.from_numpy(np.concatenate(orders)[: len(epochs)]).to(context.device)

        optimizer = torch.optim.AdamW(
            model.parameters(), lr=self.lr, betas=(0.9, 0.95), weight_decay=self.weight_decay, fused=True
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


def _images(context: EvalContext, x: Tensor) -> Tensor:
    size = context.data.facts["image_size"]
    return x.view(len(x), context.data.facts["in_chans"], size, size)
