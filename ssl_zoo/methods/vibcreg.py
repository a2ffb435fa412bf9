"""VIbCReg: VICReg with correlations instead of covariances, after a whitening layer.

Lee, Aune, "VIbCReg: Variance-Invariance-better-Covariance Regularization for Self-Supervised Learning on Time Series",
2021, https://arxiv.org/abs/2109.00783 (since 2022 under the title "Computer Vision Self-supervised Learning Methods on
Time Series"). Official code: github.com/ML4ITS/vibcreg.
IterNorm: Huang, Zhou, Zhu, Liu, Shao, "Iterative Normalization: Beyond Standardization towards Efficient Whitening",
CVPR 2019, https://arxiv.org/abs/1904.03441, Algorithm 1.
"""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_zoo.checks import positive
from ssl_zoo.distributed import all_gather, all_reduce_mean
from ssl_zoo.functional import off_diagonal, variance_loss, view_pairs
from ssl_zoo.method import Batch, Method
from ssl_zoo.nn.heads import mlp


class IterNorm(nn.Module):
    """Whitens each group of features over the global batch, followed by a learned affine map.

    The inverse square root of a group's covariance is computed by the coupled form of Newton's iteration, which has the
    same iterates as P <- (3 P - P^3 S) / 2 but does not diverge by rounding after about 15 of them. There are no
    running statistics, because projectors are discarded after training: in evaluation mode, too, a batch is whitened by
    its own statistics.
    """

    def __init__(self, dim: int, num_groups: int, iterations: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.bias = nn.Parameter(torch.zeros(dim))
        self.num_groups = num_groups
        self.iterations = iterations

    def forward(self, z: Tensor) -> Tensor:
        """Maps (B, D) to (B, D) float32."""
        x = z.float().unflatten(1, (self.num_groups, -1)).transpose(0, 1)  # (G, B, d)
        x = x - all_reduce_mean(x.mean(dim=1, keepdim=True))
        eye = torch.eye(x.shape[2], device=x.device)
        with torch.autocast(x.device.type, enabled=False):
            covariance = all_reduce_mean(x.mT @ x / x.shape[1]) + 1e-5 * eye  # (G, d, d)
            trace = covariance.diagonal(dim1=1, dim2=2).sum(dim=1).view(-1, 1, 1)
            scaled, inverse = covariance / trace, eye.expand_as(covariance)
            for _ in range(self.iterations):
                step = 1.5 * eye - 0.5 * inverse @ scaled
                scaled, inverse = scaled @ step, step @ inverse  # converge to the square root and its inverse
            x = x @ (inverse / trace.sqrt())
        return x.transpose(0, 1).flatten(1) * self.weight + self.bias


def correlation_loss(z: Tensor) -> Tensor:
    """Sum of the squared correlations of different features of z (N, D) float32, divided by D^2."""
    z = F.normalize(z - z.mean(dim=0), dim=0, eps=1e-6)
    with torch.autocast(z.device.type, enabled=False):
        correlation = z.T @ z  # (D, D)
    return off_diagonal(correlation).square().mean()


class VIbCReg(Method):
    """The projector has three layers and IterNorm; variances and correlations are those of the global batch."""

    min_views: ClassVar[int] = 2

    def __init__(
        self,
        backbone: nn.Module,
        hidden_dim: int,
        out_dim: int,
        num_groups: int,
        iterations: int,
        invariance_weight: float,
        variance_weight: float,
        covariance_weight: float,
    ):
        super().__init__(backbone)
        positive(hidden_dim=hidden_dim, out_dim=out_dim, num_groups=num_groups, iterations=iterations)
        positive(invariance_weight=invariance_weight, variance_weight=variance_weight)
        positive(covariance_weight=covariance_weight)
        if out_dim % num_groups:
            raise ValueError(f"method.num_groups={num_groups} must divide method.out_dim={out_dim}")
        self.projector = nn.Sequential(
            mlp(self.backbone.num_features, hidden_dim, hidden_dim, out_dim), IterNorm(out_dim, num_groups, iterations)
        )
        self.invariance_weight = invariance_weight
        self.variance_weight = variance_weight
        self.covariance_weight = covariance_weight

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Weighted sum of invariance, variance and correlation terms.

        Two views: variance and correlation are summed over them, as in the official code (VICReg's official code halves
        the variance term). More views: twice the mean over views; invariance is the mean over pairs.
        """
        z = [self.projector(self.backbone(view)) for view in batch.views]
        gathered = [all_gather(x) for x in z]
        invariance = torch.stack([F.mse_loss(z[i], z[j]) for i, j in view_pairs(batch.views) if i < j]).mean()
        variance = 2 * torch.stack([variance_loss(x) for x in gathered]).mean()
        covariance = 2 * torch.stack([correlation_loss(x) for x in gathered]).mean()
        loss = self.invariance_weight * invariance + self.variance_weight * variance
        loss = loss + self.covariance_weight * covariance
        return {"loss": loss, "invariance": invariance, "variance": variance, "covariance": covariance}
