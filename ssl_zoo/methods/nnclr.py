"""NNCLR: the positive of a view is the nearest neighbour, in a queue, of another view of the same example.

Dwibedi, Aytar, Tompson, Sermanet, Zisserman, "With a Little Help from My Friends: Nearest-Neighbor Contrastive Learning
of Visual Representations", ICCV 2021, https://arxiv.org/abs/2104.14548, Section 3 and Algorithm 1. No official code.
"""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_zoo.checks import positive
from ssl_zoo.distributed import all_gather, own_rows
from ssl_zoo.functional import global_views, info_nce, view_pairs
from ssl_zoo.method import Batch, Method
from ssl_zoo.nn.heads import mlp
from ssl_zoo.nn.queue import Queue


class NNCLR(Method):
    """The queue is the paper's support set; neighbours of projections are compared with predictions."""

    min_views: ClassVar[int] = 2

    def __init__(
        self,
        backbone: nn.Module,
        hidden_dim: int,
        out_dim: int,
        predictor_hidden_dim: int,
        queue_size: int,
        temperature: float,
    ):
        super().__init__(backbone)
        positive(hidden_dim=hidden_dim, out_dim=out_dim, predictor_hidden_dim=predictor_hidden_dim)
        positive(queue_size=queue_size, temperature=temperature)
        self.projector = mlp(self.backbone.num_features, hidden_dim, hidden_dim, out_dim, last_norm=True)
        self.predictor = mlp(out_dim, predictor_hidden_dim, out_dim)
        self.queue = Queue(queue_size, out_dim)
        self.temperature = temperature

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """InfoNCE of each neighbour with all predictions of the other view, mean over the batch and both directions.

        More than two views: mean over all pairs of a global view's neighbour and another view.
        """
        z = [self.projector(self.backbone(view)) for view in batch.views]
        p = [all_gather(self.predictor(x)) for x in z]  # (WB, D), so that negatives come from all processes
        neighbours = [self.queue.nearest(x, 1)[:, 0] for x in z[: len(global_views(batch.views))]]
        own = own_rows(z[0])
        losses = [
            info_nce(neighbours[i], p[j], own, self.temperature, excluded=None) for i, j in view_pairs(batch.views)
        ]
        if self.training:
            self.queue.push(F.normalize(z[0].float(), dim=1), batch.indices)  # the first view only, as in Algorithm 1
        return {"loss": torch.stack(losses).mean()}
