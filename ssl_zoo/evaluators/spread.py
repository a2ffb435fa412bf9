"""How many directions the features use: a measure of collapse that needs no labels.

RankMe: Garrido, Balestriero, Najman, LeCun, "RankMe: Assessing the Downstream Performance of Pretrained Self-Supervised
Representations by Their Rank", ICML 2023, https://arxiv.org/abs/2210.02885, Equation 1.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_zoo.evaluators.base import EvalContext, random_rows


def rankme(x: Tensor) -> float:
    """Effective rank of x (N, D), in [1, min(N, D)]: exp of the entropy of the normalised singular values."""
    x = x.double()
    gram = x.T @ x if x.shape[1] <= x.shape[0] else x @ x.T
    shares = torch.linalg.eigvalsh(gram).clamp(min=0).sqrt()
    shares = shares / shares.sum().clamp(min=torch.finfo(shares.dtype).tiny)
    return math.exp(-torch.special.xlogy(shares, shares).sum().item())


def feature_std(x: Tensor) -> float:
    """Mean deviation of the normalised features x (N, D), times sqrt(D): about 1 when spread out, 0 at a point."""
    return F.normalize(x, dim=1).std(dim=0, correction=0).mean().item() * math.sqrt(x.shape[1])


class Spread:
    """Reports `rankme` and `feature_std` of the training features; `collapse` recognises their decline in training."""

    needs_labels = False

    def __init__(self, samples: int):
        """Keeps the settings.

        Args:
            samples: maximum number of training features that are used.

        Raises:
            ValueError: for fewer than 2 samples.
        """
        if samples < 2:
            raise ValueError(f"evaluators.spread.samples={samples}: give at least 2, 25600 as in the paper for example")
        self.samples = samples

    def __call__(self, context: EvalContext) -> dict[str, float]:
        """Both numbers."""
        x = context.train.x
        if len(x) > self.samples:
            x = x[random_rows(len(x), self.samples)]
        return {"rankme": rankme(x.to(context.device)), "feature_std": feature_std(x)}
