"""Barlow Twins: the cross-correlation matrix of the features of two views should be the identity.

Zbontar, Jing, Misra, LeCun, Deny, "Barlow Twins: Self-Supervised Learning via Redundancy Reduction", ICML 2021,
https://arxiv.org/abs/2103.03230, Eq. 1-2 and Algorithm 1. Official code: github.com/facebookresearch/barlowtwins.
"""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_zoo.checks import positive
from ssl_zoo.distributed import all_gather
from ssl_zoo.functional import off_diagonal, view_pairs
from ssl_zoo.method import Batch, Method
from ssl_zoo.nn.heads import mlp


def standardize(z: Tensor) -> Tensor:
    """Gathers z (B, D) of all processes and gives each feature mean 0 and variance 1: (W * B, D) float32."""
    return F.batch_norm(all_gather(z.float()), None, None, training=True)


def cross_correlation(z1: Tensor, z2: Tensor) -> Tensor:
    """Eq. 2: (D, D) correlations of the features of two views. z1, z2: (N, D), standardised."""
    with torch.autocast(z1.device.type, enabled=False):
        return z1.T @ z2 / len(z1)


class BarlowTwins(Method):
    """The projector has three layers; correlations are computed over the global batch.

    Args:
        redundancy_weight: lambda in Eq. 1.
        loss_scale: factor on Eq. 1. It matters for normalisation layers and biases, which LARS updates by plain
            momentum steps; the first official code had one too.
    """

    min_views: ClassVar[int] = 2

    def __init__(self, backbone: nn.Module, hidden_dim: int, out_dim: int, redundancy_weight: float, loss_scale: float):
        super().__init__(backbone)
        positive(hidden_dim=hidden_dim, out_dim=out_dim, redundancy_weight=redundancy_weight, loss_scale=loss_scale)
        self.projector = mlp(self.backbone.num_features, hidden_dim, hidden_dim, out_dim)
        self.redundancy_weight = redundancy_weight
        self.loss_scale = loss_scale

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """`loss_scale` times Eq. 1; `invariance` and `redundancy` are its two sums, without factors.

        More than two views: mean over all pairs of a global view and another view.
        """
        # One view at a time: each view has its own BatchNorm statistics, as in the official code.
        z = [standardize(self.projector(self.backbone(view))) for view in batch.views]
        correlations = [cross_correlation(z[i], z[j]) for i, j in view_pairs(batch.views) if i < j]
        invariance = torch.stack([(1 - c.diag()).square().sum() for c in correlations]).mean()
        redundancy = torch.stack([off_diagonal(c).square().sum() for c in correlations]).mean()
        loss = self.loss_scale * (invariance + self.redundancy_weight * redundancy)
        return {"loss": loss, "invariance": invariance, "redundancy": redundancy}
