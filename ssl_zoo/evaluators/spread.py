"""How many directions the features use: a measure of collapse that needs no labels.

RankMe: Garrido, Balestriero, Najman, LeCun, "RankMe: Assessing the Downstream Performance of Pretrained Self-Supervised
Representations by Their Rank", ICML 2023, https://arxiv.org/abs/2210.02885, Equation 1.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_zoo.evaluators.base import EvalContext, random_rows, warn_once


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
    """Reports `rankme` and `feature_std` of the training features, and warns when they have collapsed.

    Neither number suffices alone: features that shrink to a point keep some rank in what is left, and features that
    lose directions keep their deviation where a BatchNorm restores it. On a small SimSiam, with a rank of 11 before
    training, the two were 9 and 0.99 for a healthy run, 5 and 0.98 without stop-gradient, and 3.5 and 0.12 with
    attraction only. Networks with random weights often have small numbers too, so only the change matters.
    """

    needs_labels = False
    min_std = 0.2  # below it, and below what it was before training, features have shrunk to a point
    min_rank_ratio = 0.5  # of the highest rank so far: below it, directions were lost

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
        self.first_std = math.inf
        self.max_rank = 0.0

    def __call__(self, context: EvalContext) -> dict[str, float]:
        """Both numbers."""
        x = context.train.x
        if len(x) > self.samples:
            x = x[random_rows(len(x), self.samples)]
        rank, std = rankme(x.to(context.device)), feature_std(x)
        if context.phase == "init":
            self.first_std = std
        elif std < min(self.min_std, self.first_std):
            warn_once(f"warning: the features have collapsed to a point: feature_std is {std:.2g}, healthy is up to 1")
        elif rank < self.min_rank_ratio * self.max_rank:
            warn_once(
                f"warning: the features are collapsing: they use {rank:.1f} of {x.shape[1]} directions (rankme), "
                f"{self.max_rank:.1f} earlier in this run"
            )
        self.max_rank = max(self.max_rank, rank)
        return {"rankme": rank, "feature_std": std}
