"""TiCo: agree with an EMA target network, and avoid directions with large second moment in recent embeddings.

Zhu, Moraes, Karakulak, Sobol, Canziani, LeCun, "TiCo: Transformation Invariance and Covariance Contrast for
Self-Supervised Visual Representation Learning", 2022, https://arxiv.org/abs/2206.10698, Section 3.
No official code; a test compares the loss with lightly's.
"""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_zoo.checks import fraction, positive
from ssl_zoo.distributed import all_reduce_mean
from ssl_zoo.functional import cosine_distance, ema_copy, ema_update_cosine, global_views, view_pairs
from ssl_zoo.method import Batch, Method
from ssl_zoo.nn.heads import mlp


class TiCo(Method):
    """The online network is backbone and projector, the target an EMA of both; `covariance` is a running mean.

    Args:
        contrast_weight: rho in the paper.
        covariance_decay: beta in the paper.
        ema_decay: of the target; rises to 1 over the run along a half-cosine.
    """

    min_views: ClassVar[int] = 2
    covariance: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        hidden_dim: int,
        out_dim: int,
        contrast_weight: float,
        covariance_decay: float,
        ema_decay: float,
    ):
        super().__init__(backbone)
        positive(hidden_dim=hidden_dim, out_dim=out_dim, contrast_weight=contrast_weight)
        fraction(covariance_decay=covariance_decay, ema_decay=ema_decay)
        self.projector = mlp(self.backbone.num_features, hidden_dim, out_dim)
        self.target = ema_copy(nn.Sequential(backbone, self.projector))
        self.contrast_weight = contrast_weight
        self.covariance_decay = covariance_decay
        self.ema_decay = ema_decay
        self.register_buffer("covariance", torch.zeros(out_dim, out_dim))

    def updated_covariance(self, z: list[Tensor]) -> Tensor:
        """`covariance` (D, D) after an EMA step with the second moments of z over the global batch and all views."""
        with torch.no_grad(), torch.autocast(self.covariance.device.type, enabled=False):
            moments = torch.stack([x.T @ x / len(x) for x in z]).mean(dim=0)
            return self.covariance.lerp(all_reduce_mean(moments), 1 - self.covariance_decay)

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """1 - cos + rho z^T C z, mean over the batch and both directions, without gradient in C.

        The paper uses one direction and omits the 1. More views: mean over all predictions of a global view.
        """
        # One view at a time: each view has its own BatchNorm statistics.
        z = [F.normalize(self.projector(self.backbone(view)).float(), dim=1) for view in batch.views]
        with torch.no_grad():
            t = [self.target(view) for view in global_views(batch.views)]
        invariance = torch.stack([cosine_distance(z[j], t[i]) for i, j in view_pairs(batch.views)]).mean() / 2
        covariance = self.updated_covariance(z)
        with torch.autocast(covariance.device.type, enabled=False):
            contrast = torch.stack([(x @ covariance * x).sum(dim=1).mean() for x in z]).mean()
        if self.training:
            self.covariance = covariance
        return {
            "loss": invariance + self.contrast_weight * contrast,
            "invariance": invariance,
            "contrast": contrast,
        }

    def after_step(self, progress: float) -> None:
        """Updates the target."""
        online = nn.Sequential(self.backbone, self.projector)
        ema_update_cosine(self.target, online, self.ema_decay, progress)
