"""Whether the probabilities of the linear probe mean what they say: expected calibration error, temperature scaling.

Guo, Pleiss, Sun, Weinberger, "On Calibration of Modern Neural Networks", ICML 2017, https://arxiv.org/abs/1706.04599,
Sections 2 and 4.2, with their 15 bins. The probe is fitted on a part of the training split, and the temperature on the
rest of it; the test split is used once, at the end. Letters: N examples, C classes.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_zoo.evaluators.base import EvalContext
from ssl_zoo.evaluators.linear import Linear
from ssl_zoo.evaluators.validation import check_validation, validation_split


def calibration_error(logits: Tensor, labels: Tensor, bins: int) -> float:
    """Mean distance of confidence and accuracy over bins of equal width, weighted by their examples (Equation 3).

    Args:
        logits: (N, C).
        labels: (N,) int64; -1 for a class that the logits do not have, which is never right.
        bins: number of bins; a confidence at an edge belongs to the lower one.
    """
    confidence, predicted = logits.double().softmax(dim=1).max(dim=1)
    bin_of = ((confidence * bins).ceil().long() - 1).clamp(0, bins - 1)
    excess = confidence - (predicted == labels).double()
    return torch.zeros(bins).double().index_add_(0, bin_of, excess).abs().sum().item() / len(labels)


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """The temperature, from 0.01 to 100, that minimises the cross-entropy of logits (N, C) / temperature."""
    from scipy.optimize import minimize_scalar  # slow to import

    logits = logits.double()

    def loss(exponent: float) -> float:
        return F.cross_entropy(logits / 10**exponent, labels).item()

    return float(10 ** minimize_scalar(loss, bounds=(-2, 2), method="bounded", options={"xatol": 1e-5}).x)


class Calibration:
    """Reports `calibration/error` and `calibration/loss` of the probe's probabilities on the test split.

    `calibration_scaled/error`, `calibration_scaled/loss` are those after temperature scaling, and
    `calibration_scaled/temperature` the temperature: above 1 where the probe is overconfident. Measured at the end of a
    run only.
    """

    needs_labels = True

    def __init__(self, bins: int, validation: float, linear: Linear):
        """Keeps the settings.

        Args:
            bins: of the confidence.
            validation: share of the training split that the temperature is fitted on, and the probe is not.
            linear: the probe.

        Raises:
            ValueError: for no bins, or a share outside (0, 1).
        """
        if bins < 1:
            raise ValueError(f"evaluators.calibration.bins={bins}: give at least 1, 15 as in the paper for example")
        check_validation("evaluators.calibration", validation)
        self.bins = bins
        self.validation = validation
        self.linear = linear

    def __call__(self, context: EvalContext) -> dict[str, float]:
        """All numbers. The loss is over the test examples of classes that the probe knows."""
        if context.phase != "final":
            return {}
        x, y = context.train.x.to(context.device), context.train.y.to(context.device)
        rest, held = (rows.to(context.device) for rows in validation_split(len(x), self.validation))
        probe = self.linear.standardized(x[rest], y[rest])
        classes = probe.probe.classes

        def known(features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
            """Logits, and labels as their columns, -1 for other classes."""
            matches = labels[:, None] == classes
            columns = torch.where(matches.any(dim=1), matches.int().argmax(dim=1), -1)
            return probe.logits(features).cpu(), columns.cpu()

        logits, labels = known(x[held], y[held])
        temperature = fit_temperature(logits[labels >= 0], labels[labels >= 0]) if (labels >= 0).any() else 1.0
        logits, labels = known(context.test.x.to(context.device), context.test.y.to(context.device))
        metrics = {"calibration_scaled/temperature": temperature}
        for name, scaled in (("calibration", logits), ("calibration_scaled", logits / temperature)):
            metrics[f"{name}/error"] = calibration_error(scaled, labels, self.bins)
            metrics[f"{name}/loss"] = F.cross_entropy(scaled, labels, ignore_index=-1).item()
        return metrics
