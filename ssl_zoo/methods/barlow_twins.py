"""Barlow Twins: the cross-correlation of two views' features over the batch is pulled towards the identity.

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
    """Mean 0 and variance 1 for each feature over the global batch: (B, D) on each process -> (W * B, D) float32."""
    return F.batch_norm(all_gather(z.float()), None, None, training=True)


def cross_correlation(z1: Tensor, z2: Tensor) -> Tensor:
    """Eq. 2: (D, D) correlations of the features of two views. z1, z2: (N, D), standardised."""
    with torch.autocast(z1.device.type, enabled=False):
        return z1.T @ z2 / len(z1)


class BarlowTwins(Method):
    """Projector of three layers; the correlation is taken over the batch of all processes."""

    min_views: ClassVar[int] = 2

    def __init__(self, backbone: nn.Module, hidden_dim: int, out_dim: int, redundancy_weight: float, loss_scale: float):
        """`redundancy_weight`: lambda of Eq. 1. `loss_scale`: a factor on Eq. 1, which matters to norms and biases, as
        LARS moves them by plain momentum steps; the first official code had one too."""
        super().__init__(backbone)
        positive(hidden_dim=hidden_dim, out_dim=out_dim, redundancy_weight=redundancy_weight, loss_scale=loss_scale)
        self.projector = mlp(self.backbone.num_features, hidden_dim, hidden_dim, out_dim)
        self.redundancy_weight, self.loss_scale = redundancy_weight, loss_scale

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """`loss_scale` times Eq. 1, sums over features; with more than two views the mean over all pairs with a global
        view in them. `invariance` and `redundancy` are the two sums of Eq. 1, without factors."""
        # One view at a time: BatchNorm statistics are those of a view, as in the official code.
        z = [standardize(self.projector(self.backbone(view))) for view in batch.views]
        correlations = [cross_correlation(z[i], z[j]) for i, j in view_pairs(batch.views) if i < j]
        invariance = torch.stack([(1 - c.diag()).square().sum() for c in correlations]).mean()
        redundancy = torch.stack([off_diagonal(c).square().sum() for c in correlations]).mean()
        loss = self.loss_scale * (invariance + self.redundancy_weight * redundancy)
        return {"loss": loss, "invariance": invariance, "redundancy": redundancy}
