"""NNSiam: SimSiam that predicts the nearest neighbour, in a queue, of the projection of another view.

Neighbours as in Dwibedi et al., "With a Little Help from My Friends: Nearest-Neighbor Contrastive Learning
of Visual Representations", ICCV 2021, https://arxiv.org/abs/2104.14548; loss as in SimSiam, Eqs. 1-2,
https://arxiv.org/abs/2011.10566; combined as in nnsiam.py of github.com/vturrisi/solo-learn.
"""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_zoo.checks import positive
from ssl_zoo.functional import global_views, view_pairs
from ssl_zoo.method import Batch, Method
from ssl_zoo.nn.heads import mlp
from ssl_zoo.nn.queue import Queue


class NNSiam(Method):
    """Heads as in SimSiam; the predictor has a constant learning rate."""

    min_views: ClassVar[int] = 2
    constant_rate: ClassVar[tuple[str, ...]] = ("predictor",)

    def __init__(self, backbone: nn.Module, hidden_dim: int, out_dim: int, predictor_hidden_dim: int, queue_size: int):
        super().__init__(backbone)
        positive(hidden_dim=hidden_dim, out_dim=out_dim, predictor_hidden_dim=predictor_hidden_dim)
        positive(queue_size=queue_size)
        layers = mlp(self.backbone.num_features, hidden_dim, hidden_dim, out_dim, last_norm=True)
        self.projector = nn.Sequential(*layers[:-1], nn.BatchNorm1d(out_dim, affine=False))
        self.predictor = mlp(out_dim, predictor_hidden_dim, out_dim)
        self.queue = Queue(queue_size, out_dim)

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """-cos(p, neighbour), mean over the batch and all pairs of a global view and another view; in [-1, 1]."""
        z = [self.projector(self.backbone(view)) for view in batch.views]
        p = [self.predictor(x) for x in z]
        neighbours = [self.queue.nearest(x, 1)[:, 0] for x in z[: len(global_views(batch.views))]]
        pairs = view_pairs(batch.views)
        cosines = [F.cosine_similarity(p[j].float(), neighbours[i], dim=1).mean() for i, j in pairs]
        if self.training:
            self.queue.push(F.normalize(z[0].float(), dim=1), batch.indices)
        return {"loss": -torch.stack(cosines).mean()}
