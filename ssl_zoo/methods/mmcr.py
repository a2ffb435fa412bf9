"""MMCR: the views of an example share one direction, and the centroids of all examples span the space.

Yerxa, Kuang, Simoncelli, Chung, "Efficient Coding of Natural Images using Maximum Manifold Capacity
Representations", NeurIPS 2023, https://arxiv.org/abs/2303.03307, Section 2. Official code: github.com/ThomasYerxa/mmcr.
"""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_zoo.checks import choice, positive
from ssl_zoo.distributed import all_gather
from ssl_zoo.functional import VIEWS_PER_BATCH_NORM, project_views
from ssl_zoo.method import Batch, Method
from ssl_zoo.nn.heads import mlp


def nuclear_norm(x: Tensor) -> Tensor:
    """Sum of the singular values of each matrix of x (..., N, D) float32: (...)."""
    return torch.linalg.svdvals(x).sum(dim=-1)


class MMCR(Method):
    """The projector has one hidden layer; there is no EMA network, as in the official code for CIFAR.

    Args:
        local_weight: lambda in the paper, weight of the nuclear norm within each example; may be 0.
        views_per_batch_norm: see `functional.project_views`.
    """

    min_views: ClassVar[int] = 2

    def __init__(
        self,
        backbone: nn.Module,
        hidden_dim: int,
        out_dim: int,
        local_weight: float,
        views_per_batch_norm: str = "joint",
    ):
        super().__init__(backbone)
        choice(VIEWS_PER_BATCH_NORM, views_per_batch_norm=views_per_batch_norm)
        positive(hidden_dim=hidden_dim, out_dim=out_dim)
        if not 0 <= local_weight < float("inf"):
            raise ValueError(f"method.local_weight={local_weight} must be 0 or more, and finite")
        self.projector = mlp(self.backbone.num_features, hidden_dim, out_dim)
        self.local_weight = local_weight
        self.views_per_batch_norm = views_per_batch_norm

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Loss lambda * ||Z_b||_* (mean over the batch) - ||C||_*; at least -sqrt(N min(N, D)).

        Z_b (V, D) holds the unit vectors of the views of an example, C (N, D) their means for all examples of the
        global batch. Global and local views have equal weight.
        """
        z = torch.stack(
            project_views(self.backbone, self.projector, batch.views, self.views_per_batch_norm), dim=1
        )  # (B, V, D)
        z = F.normalize(z.float(), dim=2)
        spread = nuclear_norm(all_gather(z.mean(dim=1)))
        if self.local_weight == 0:  # saves B small singular value decompositions
            return {"loss": -spread}
        return {"loss": self.local_weight * nuclear_norm(z).mean() - spread}
