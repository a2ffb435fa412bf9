"""Linear probe by SGD with momentum, as most papers train it, on features that are extracted once.

The protocol is that of He, Fan, Wu, Xie, Girshick, "MoCo", CVPR 2020, https://arxiv.org/abs/1911.05722, Section 4.1
(100 epochs, no weight decay, the rate divided by 10 after 60 and 80 of them, rates from a search), which solo-learn
follows; da Costa et al., JMLR 23 (2022), https://arxiv.org/abs/2108.01775. Two things differ: the features are those
of the plain view, where these protocols crop and flip each image anew in every epoch; and the rate is chosen on a
validation split of the training examples, where many papers choose it on the test split. Letters: N examples, D width,
C classes, R rates.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_zoo.data.order import epoch_order
from ssl_zoo.evaluators.base import EvalContext, warn_once
from ssl_zoo.evaluators.linear import Probe
from ssl_zoo.evaluators.validation import check_validation, validation_split

SCHEDULES = ("step", "cosine")


def rate_factor(schedule: str, progress: float) -> float:
    """Factor of the peak rate when this share of the epochs has passed; "step": 0.1 from 60 % on, 0.01 from 80 % on."""
    if schedule == "cosine":
        return (1 + math.cos(math.pi * progress)) / 2
    return 1.0 if progress < 0.6 else 0.1 if progress < 0.8 else 0.01


def fit_by_sgd(
    x: Tensor, y: Tensor, rates: Sequence[float], epochs: int, batch_size: int, momentum: float, schedule: str
) -> list[Probe]:
    """Trains one classifier per rate, all in the same pass over the features.

    Args:
        x: (N, D) float32, features.
        y: (N,) int64, labels.
        rates: R peak rates.
        epochs: passes over the features.
        batch_size: examples per step; the last batch of an epoch may be smaller.
        momentum: of SGD, as torch.optim.SGD applies it.
        schedule: see `rate_factor`; it advances with each epoch.
    """
    classes, target = y.unique(return_inverse=True)
    size = (len(rates), len(classes), x.shape[1])
    start = 0.01 * torch.randn(size[1:], generator=torch.Generator().manual_seed(0))  # as MoCo initialises it
    weight = start.to(x).repeat(size[0], 1, 1).requires_grad_()
    bias = x.new_zeros(size[:2], requires_grad=True)
    # A loss multiplied by a rate, with momentum and a common rate of 1, is SGD at that rate.
    scale = torch.tensor(rates, dtype=x.dtype, device=x.device)
    optimizer = torch.optim.SGD([weight, bias], lr=1.0, momentum=momentum)
    for epoch in range(epochs):
        optimizer.param_groups[0]["lr"] = rate_factor(schedule, epoch / epochs)
        order = torch.from_numpy(epoch_order(len(x), 0, epoch)).to(x.device)
        for rows in order.split(batch_size):
            logits = F.linear(x[rows], weight.flatten(0, 1), bias.flatten()).unflatten(1, size[:2])  # (B, R, C)
            losses = F.cross_entropy(
                logits.transpose(1, 2), target[rows, None].expand(-1, size[0]), reduction="none"
            ).mean(dim=0)
            optimizer.zero_grad()
            (losses * scale).sum().backward()
            optimizer.step()
    return [Probe(w, b, classes) for w, b in zip(weight.detach(), bias.detach(), strict=True)]


class LinearSGD:
    """Reports `linear_sgd/top1`, accuracy on the test split, and `linear_sgd/lr`, the rate.

    The rate is chosen on a validation split of the training examples. One that diverges is never chosen; one at an end
    of the range is, with a message. It takes a minute or more, so periodic evaluations leave it out.
    """

    needs_labels = True

    def __init__(
        self, lr: list[float], epochs: int, batch_size: int, momentum: float, schedule: str, validation: float
    ):
        """Keeps the settings.

        Args:
            lr: peak rates to choose from.
            epochs: passes over the features, for each rate and for the final fit.
            batch_size: examples per step.
            momentum: of SGD.
            schedule: "step" or "cosine".
            validation: share of the training split that is held out to choose.

        Raises:
            ValueError: for settings outside their range.
        """
        key = "evaluators.linear_sgd"
        if not lr or min(lr) <= 0 or len(set(lr)) < len(lr):
            raise ValueError(f"{key}.lr={lr} must be one or more different positive rates, [0.1, 1, 10] for example")
        for name, value in (("epochs", epochs), ("batch_size", batch_size)):
            if value < 1:
                raise ValueError(f"{key}.{name}={value}: give at least 1")
        if not 0 <= momentum < 1:
            raise ValueError(f"{key}.momentum={momentum} must lie in [0, 1), 0.9 for example")
        if schedule not in SCHEDULES:
            raise ValueError(f"{key}.schedule={schedule}: give one of {', '.join(SCHEDULES)}")
        check_validation(key, validation)
        self.lr = sorted(lr)
        self.how = (epochs, batch_size, momentum, schedule)
        self.validation = validation

    def __call__(self, context: EvalContext) -> dict[str, float]:
        """Accuracy and rate.

        Raises:
            FloatingPointError: when training diverges at every rate.
        """
        if context.phase == "periodic":
            return {}
        x, y = context.train.x.to(context.device), context.train.y.to(context.device)
        rate = self.choose(x, y)
        if rate in (self.lr[0], self.lr[-1]) and len(self.lr) > 1:
            warn_once(
                f"linear_sgd: the chosen rate, {rate:g}, is at an end of evaluators.linear_sgd.lr: extend the list"
            )
        (probe,) = fit_by_sgd(x, y, [rate], *self.how)
        top1 = probe.accuracy(context.test.x.to(context.device), context.test.y.to(context.device))
        return {"linear_sgd/top1": top1, "linear_sgd/lr": rate}

    def choose(self, x: Tensor, y: Tensor) -> float:
        """The rate with the highest validation accuracy, the smallest of equals."""
        rest, held = (rows.to(x.device) for rows in validation_split(len(x), self.validation))
        probes = fit_by_sgd(x[rest], y[rest], self.lr, *self.how)
        finite = [bool(probe.weight.isfinite().all()) for probe in probes]
        if not any(finite):
            raise FloatingPointError(f"evaluators.linear_sgd.lr={self.lr}: training diverges at each of them")
        scores = [p.accuracy(x[held], y[held]) if ok else -1.0 for p, ok in zip(probes, finite, strict=True)]
        return self.lr[scores.index(max(scores))]
