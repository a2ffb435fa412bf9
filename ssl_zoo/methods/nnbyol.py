"""NNBYOL: BYOL that predicts, not the target's projection of the other view, but its nearest neighbour among past ones.

The neighbours are those of Dwibedi et al., "With a Little Help from My Friends: Nearest-Neighbor Contrastive Learning
of Visual Representations", ICCV 2021, https://arxiv.org/abs/2104.14548, the loss that of BYOL, Eq. 2,
https://arxiv.org/abs/2006.07733; so joined in nnbyol.py of github.com/vturrisi/solo-learn.
"""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn, no_grad

from ssl_zoo.checks import fraction, positive
from ssl_zoo.functional import cosine_distance, ema_copy, ema_update_cosine, global_views, view_pairs
from ssl_zoo.method import Batch, Method
from ssl_zoo.nn.heads import mlp
from ssl_zoo.nn.queue import Queue


class NNBYOL(Method):
    """The queue holds what the target, an EMA of backbone and projector, made of past first views."""

    min_views: ClassVar[int] = 2

    def __init__(self, backbone: nn.Module, hidden_dim: int, out_dim: int, queue_size: int, ema_decay: float):
        """`ema_decay` grows to 1 over the run by half a cosine."""
        super().__init__(backbone)
        positive(hidden_dim=hidden_dim, out_dim=out_dim, queue_size=queue_size)
        fraction(ema_decay=ema_decay)
        self.projector = mlp(self.backbone.num_features, hidden_dim, out_dim)
        self.predictor = mlp(out_dim, hidden_dim, out_dim)
        self.target = ema_copy(nn.Sequential(backbone, self.projector))
        self.queue = Queue(queue_size, out_dim)
        self.ema_decay = ema_decay

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Sum over both directions of 2 - 2 cos, in [0, 8], mean over the batch; more views: twice the mean."""
        p = [self.predictor(self.projector(self.backbone(view))) for view in batch.views]
        with no_grad():
            t = [F.normalize(self.target(view).float(), dim=1) for view in global_views(batch.views)]
        neighbours = [self.queue.nearest(x, 1)[:, 0] for x in t]
        losses = [cosine_distance(p[j], neighbours[i]) for i, j in view_pairs(batch.views)]
        if self.training:
            self.queue.push(t[0], batch.indices)
        return {"loss": 2 * torch.stack(losses).mean()}

    def after_step(self, progress: float) -> None:
        online = nn.Sequential(self.backbone, self.projector)
        ema_update_cosine(self.target, online, self.ema_decay, progress)
