"""Linear probe: multinomial logistic regression on frozen features, solved to its optimum.

This is converged logistic regression, not the probe by SGD of most papers. The penalty is chosen on a validation split
of the training examples; the test split is used once, at the end. Letters: N examples, D width, C classes.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_zoo.evaluators.base import EvalContext
from ssl_zoo.evaluators.proportion import Proportion


class Probe(NamedTuple):
    """A linear classifier.

    Attributes:
        weight: (C, D).
        bias: (C,).
        classes: (C,) int64, the labels that its outputs stand for.
    """

    weight: Tensor
    bias: Tensor
    classes: Tensor

    def accuracy(self, x: Tensor, y: Tensor) -> Proportion:
        """Share of the examples x (N, D) that are given their label in y (N,)."""
        predictions = self.classes[F.linear(x, self.weight, self.bias).argmax(dim=1)]
        return Proportion.of((predictions == y).cpu())


class StandardizedProbe(NamedTuple):
    """A linear classifier of features as the encoder gives them.

    Attributes:
        mean: (D,), subtracted from the features.
        scale: (D,), by which they are multiplied then.
        probe: the classifier of the result.
    """

    mean: Tensor
    scale: Tensor
    probe: Probe

    def logits(self, x: Tensor) -> Tensor:
        """Maps features (N, D) to (N, C)."""
        return F.linear((x - self.mean) * self.scale, self.probe.weight, self.probe.bias)


def mean_and_scale(train: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and inverse deviation of each feature over train (N, D), (D,) both; the scale of a constant is 0."""
    variance, mean = torch.var_mean(train, dim=0, correction=0)
    deviation = variance.sqrt()
    alive = deviation > 1e-6 * deviation.max()
    return mean, torch.where(alive, 1 / deviation.where(alive, torch.ones_like(deviation)), 0)


def standardize_features(train: Tensor, *others: Tensor) -> list[Tensor]:
    """Standardises each feature by its mean and deviation over train (N, D), in all tensors; constants become 0."""
    mean, scale = mean_and_scale(train)
    return [(x - mean) * scale for x in (train, *others)]


def fit_probe(x: Tensor, y: Tensor, l2: float, start: Probe | None = None) -> Probe:
    """Minimises mean cross-entropy + l2 / 2 * |weight|^2; the bias is not penalised.

    scikit-learn calls the same problem LogisticRegression(C=1 / (l2 * N)). Classes without an example get no output.

    L-BFGS optimises in whitened coordinates, by the Cholesky factor of feature covariance / C + l2 I, in which the
    curvature is about 1 in all directions at first: same minimum, several times fewer iterations.

    Args:
        x: (N, D) float32, features.
        y: (N,) int64, labels.
        l2: penalty, above 0.
        start: where to begin, for example the minimum for another l2.
    """
    classes, target = y.unique(return_inverse=True)
    mean = x.mean(dim=0)
    curvature = l2 * torch.eye(x.shape[1], dtype=torch.float64, device=x.device)
    for rows in x.split(10_000):
        centered = (rows - mean).double()
        curvature.addmm_(centered.T, centered, alpha=1 / (len(x) * len(classes)))
    factor = torch.linalg.cholesky(curvature)
    inverse = torch.linalg.solve_triangular(factor, torch.eye(len(factor)).to(factor), upper=False).to(x.dtype)

    if start is None:
        steps = x.new_zeros(len(classes), x.shape[1] + 1)
    else:
        intercept = start.bias + start.weight @ mean
        steps = torch.cat([start.weight @ factor.to(x.dtype), intercept[:, None] / len(classes) ** 0.5], dim=1)
    steps.requires_grad_()

    def weight_and_bias() -> tuple[Tensor, Tensor]:
        weight = steps[:, :-1] @ inverse
        return weight, steps[:, -1] * len(classes) ** 0.5 - weight @ mean

    def loss() -> Tensor:
        weight, bias = weight_and_bias()
        return F.cross_entropy(F.linear(x, weight, bias), target) + l2 / 2 * weight.square().sum()

    _minimise(steps, loss)
    weight, bias = weight_and_bias()
    return Probe(weight.detach(), bias.detach(), classes)


def _minimise(parameter: Tensor, loss: Callable[[], Tensor]) -> None:
    """Full-batch L-BFGS until gradient or progress vanish in float32; the remaining gap is about 1e-6."""

    def closure() -> Tensor:
        parameter.grad = None
        value = loss()
        value.backward()
        return value

    torch.optim.LBFGS(
        [parameter],
        max_iter=200,
        history_size=20,
        tolerance_grad=1e-5,
        tolerance_change=1e-7,
        line_search_fn="strong_wolfe",
    ).step(closure)


class Linear:
    """Reports `linear/top1`, accuracy on the test split, and `linear/l2`, the penalty, chosen on the training split."""

    needs_labels = True

    def __init__(self, l2: list[float], validation: float):
        """Keeps the settings.

        Args:
            l2: penalties to choose from.
            validation: share of the training split that is held out to choose.

        Raises:
            ValueError: for a penalty that is not positive, or a share outside (0, 1).
        """
        if not l2 or min(l2) <= 0:
            raise ValueError(
                f"evaluators.linear.l2={l2} must be one or more positive penalties, [1e-3, 1e-2] for example"
            )
        if not 0 < validation < 1:
            raise ValueError(f"evaluators.linear.validation={validation} must lie between 0 and 1, 0.2 for example")
        self.l2 = sorted(l2, reverse=True)
        self.validation = validation

    def __call__(self, context: EvalContext) -> dict[str, float]:
        """Accuracy and penalty. The probe is left as `context.probe`."""
        train, test = context.train, context.test
        x, queries = standardize_features(train.x.to(context.device), test.x.to(context.device))
        l2, probe = self.choose(x, train.y.to(context.device))
        kept = Probe(*(tensor.cpu() for tensor in probe))
        mean, scale = mean_and_scale(train.x.to(context.device))
        context.probe = StandardizedProbe(mean.cpu(), scale.cpu(), kept)
        return {"linear/top1": probe.accuracy(queries, test.y.to(context.device)), "linear/l2": l2}

    def choose(self, x: Tensor, y: Tensor) -> tuple[float, Probe]:
        """The penalty with the highest validation accuracy (the greatest of equals), and its fit to all of x.

        Penalties are tried from the greatest, each fit starting from the one before; the search stops after two that
        are no better, since fits with small penalties take longest.
        """
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0)).to(x.device)
        count = min(max(round(self.validation * len(x)), 1), len(x) - 1)
        (held, truth), (rest, labels) = ((x[rows], y[rows]) for rows in (order[:count], order[count:]))
        probe, accuracies = None, []
        for l2 in self.l2:
            probe = fit_probe(rest, labels, l2, start=probe)
            accuracies.append(probe.accuracy(held, truth))
            if len(accuracies) > 2 and max(accuracies[-2:]) <= max(accuracies[:-2]):
                break
        chosen = self.l2[accuracies.index(max(accuracies))]
        return chosen, fit_probe(x, y, chosen)
