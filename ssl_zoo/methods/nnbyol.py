"""NNBYOL: BYOL that predicts the nearest neighbour, in a queue, of the target's projection of another view.

Neighbours as in Dwibedi et al., "With a Little Help from My Friends: Nearest-Neighbor Contrastive Learning
of Visual Representations", ICCV 2021, https://arxiv.org/abs/2104.14548; loss as in BYOL, Eq. 2,
https://arxiv.org/abs/2006.07733; combined as in nnbyol.py of github.com/vturrisi/solo-learn.
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
    """The queue holds projections of past first views by the target, an EMA of backbone and projector.

    Args:
        ema_decay: of the target; rises to 1 over the run along a half-cosine.
    """

    min_views: ClassVar[int] = 2

    def __init__(self, backbone: nn.Module, hidden_dim: int, out_dim: int, queue_size: int, ema_decay: float):
        super().__init__(backbone)
        positive(hidden_dim=hidden_dim, out_dim=out_dim, queue_size=queue_size)
        fraction(ema_decay=ema_decay)
        self.projector = mlp(self.backbone.num_features, hidden_dim, out_dim)
        self.predictor = mlp(out_dim, hidden_dim, out_dim)
        self.target = ema_copy(nn.Sequential(backbone, self.projector))
        self.queue = Queue(queue_size, out_dim)
        self.ema_decay = ema_decay

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """2 - 2 cos, summed over both directions, mean over the batch, in [0, 8]; more views: twice the mean."""
        p = [self.predictor(self.projector(self.backbone(view))) for view in batch.views]
        with no_grad():
            t = [F.normalize(self.target(view).float(), dim=1) for view in global_views(batch.views)]
        neighbours = [self.queue.nearest(x, 1)[:, 0] for x in t]
        losses = [cosine_distance(p[j], neighbours[i]) for i, j in view_pairs(batch.views)]
        if self.training:
            self.queue.push(t[0], batch.indices)
        return {"loss": 2 * torch.stack(losses).mean()}

    def after_step(self, progress: float) -> None:
        """Updates the target."""
        online = nn.Sequential(self.backbone, self.projector)
        ema_update_cosine(self.target, online, self.ema_decay, progress)
