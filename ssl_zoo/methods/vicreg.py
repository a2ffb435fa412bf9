"""VICReg: views agree, each feature keeps its variance over the batch, and features are uncorrelated.

Bardes, Ponce, LeCun, "VICReg: Variance-Invariance-Covariance Regularization for Self-Supervised Learning", ICLR 2022,
https://arxiv.org/abs/2105.04906, Section 4.1, Eq. 1-6 and Algorithm 1. Official code:
github.com/facebookresearch/vicreg.
"""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_zoo.checks import positive
from ssl_zoo.distributed import all_gather
from ssl_zoo.functional import off_diagonal, variance_loss, view_pairs
from ssl_zoo.method import Batch, Method
from ssl_zoo.nn.heads import mlp


def covariance_loss(z: Tensor) -> Tensor:
    """Sum of the squared covariances of different features of z (N, D) float32, divided by D (Eq. 3-4)."""
    z = z - z.mean(dim=0)
    with torch.autocast(z.device.type, enabled=False):
        covariance = z.T @ z / (len(z) - 1)  # (D, D)
    return off_diagonal(covariance).square().sum() / len(covariance)


class VICReg(Method):
    """The projector ("expander") has three layers; variance and covariance are those of the global batch."""

    min_views: ClassVar[int] = 2

    def __init__(
        self,
        backbone: nn.Module,
        hidden_dim: int,
        out_dim: int,
        invariance_weight: float,
        variance_weight: float,
        covariance_weight: float,
    ):
        super().__init__(backbone)
        positive(hidden_dim=hidden_dim, out_dim=out_dim, invariance_weight=invariance_weight)
        positive(variance_weight=variance_weight, covariance_weight=covariance_weight)
        self.projector = mlp(self.backbone.num_features, hidden_dim, hidden_dim, out_dim)
        self.invariance_weight = invariance_weight
        self.variance_weight = variance_weight
        self.covariance_weight = covariance_weight

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Weighted sum of invariance, variance and covariance terms (Eq. 6), scaled as in the official code.

        Eq. 5 is divided by D, and in Eq. 6 the variance is the mean over the two views while the covariance is the sum.
        More views: invariance is the mean over pairs, variance the mean and covariance twice the mean over views.
        """
        # One view at a time: each view has its own BatchNorm statistics, as in the official code.
        z = [self.projector(self.backbone(view)).float() for view in batch.views]
        gathered = [all_gather(x) for x in z]
        invariance = torch.stack([F.mse_loss(z[i], z[j]) for i, j in view_pairs(batch.views) if i < j]).mean()
        variance = torch.stack([variance_loss(x) for x in gathered]).mean()
        covariance = 2 * torch.stack([covariance_loss(x) for x in gathered]).mean()
        loss = self.invariance_weight * invariance + self.variance_weight * variance
        loss = loss + self.covariance_weight * covariance
        return {"loss": loss, "invariance": invariance, "variance": variance, "covariance": covariance}
