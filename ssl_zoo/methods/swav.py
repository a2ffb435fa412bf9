"""SwAV: predict from one view the balanced prototype assignment of another view of the same example.

Caron, Misra, Mairal, Goyal, Bojanowski, Joulin, "Unsupervised Learning of Visual Features by Contrasting Cluster
Assignments", NeurIPS 2020, https://arxiv.org/abs/2006.09882, Sections 3.1-3.3, Eqs. 1-6. Official
code: github.com/facebookresearch/swav. Letters: B batch, K prototypes, S queue size, W processes.
"""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_zoo.checks import positive, share
from ssl_zoo.functional import embed_views, global_views, sinkhorn, view_pairs
from ssl_zoo.method import Batch, Method
from ssl_zoo.nn.heads import Prototypes, mlp
from ssl_zoo.nn.queue import Queue


class SwAV(Method):
    """Assigns global views to prototypes and predicts each assignment from all other views.

    Differs from the official code: prototypes are weight-normalised instead of renormalised after each step, and one
    queue of the first view serves all views instead of one queue per view.

    Args:
        freeze_until: share of the run during which the prototypes are frozen.
        queue_size: 0 for no queue.
        queue_from: share of the run from which the queue is used; it is filled from the start.
    """

    min_views: ClassVar[int] = 2

    def __init__(
        self,
        backbone: nn.Module,
        hidden_dim: int,
        out_dim: int,
        num_prototypes: int,
        temperature: float,
        sinkhorn_temperature: float,
        sinkhorn_iterations: int,
        freeze_until: float,
        queue_size: int,
        queue_from: float,
    ):
        super().__init__(backbone)
        positive(hidden_dim=hidden_dim, out_dim=out_dim, num_prototypes=num_prototypes, temperature=temperature)
        positive(sinkhorn_temperature=sinkhorn_temperature, sinkhorn_iterations=sinkhorn_iterations)
        share(freeze_until=freeze_until, queue_from=queue_from)
        if queue_size < 0:
            raise ValueError(f"method.queue_size={queue_size} must be 0, which means no queue, or more")
        self.projector = mlp(self.backbone.num_features, hidden_dim, out_dim)
        self.prototypes = Prototypes(out_dim, num_prototypes)
        self.queue = Queue(queue_size, out_dim) if queue_size else None
        self.temperature = temperature
        self.freeze_until = freeze_until
        self.queue_from = queue_from
        self.sinkhorn_temperature = sinkhorn_temperature
        self.sinkhorn_iterations = sinkhorn_iterations

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Cross-entropy with the assignments, mean over the batch and all pairs of a global view and another view."""
        views = batch.views
        # All views in one pass of the projector, so that they share BatchNorm statistics, as in the official code.
        z = self.projector(torch.cat(embed_views(self.backbone, views)))
        scores = self.prototypes(z, frozen=progress < self.freeze_until).chunk(len(views))
        queued = None
        if self.queue is not None and progress >= self.queue_from:
            queued = self.prototypes(self.queue.keys).detach()
        targets = [
            sinkhorn(scores[i].detach(), self.sinkhorn_temperature, self.sinkhorn_iterations, queued=queued)
            for i in range(len(global_views(views)))
        ]
        losses = [F.cross_entropy(scores[j] / self.temperature, targets[i]) for i, j in view_pairs(views)]
        if self.training and self.queue is not None:
            self.queue.push(F.normalize(z.detach().float(), dim=1).chunk(len(views))[0], batch.indices)
        return {"loss": torch.stack(losses).mean()}
