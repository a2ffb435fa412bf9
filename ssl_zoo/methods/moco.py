"""MoCo v2+: distinguish the other view of an example from a long queue of keys computed by an EMA network.

He, Fan, Wu, Xie, Girshick, "Momentum Contrast for Unsupervised Visual Representation Learning", CVPR 2020,
https://arxiv.org/abs/1911.05722, Eqs. 1-2 and Algorithm 1; the MLP head and temperature are from Chen, Fan, Girshick,
He, "Improved Baselines with Momentum Contrastive Learning", 2020, https://arxiv.org/abs/2003.04297, the symmetric loss
("+") from the authors' CIFAR-10 demo. Official code: github.com/facebookresearch/moco.
"""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn, no_grad

from ssl_zoo.checks import fraction, positive
from ssl_zoo.functional import ema_copy, ema_update, global_views, similarities, view_pairs
from ssl_zoo.method import Batch, Method
from ssl_zoo.nn.queue import Queue


def queue_info_nce(q: Tensor, k: Tensor, negatives: Tensor, temperature: float, excluded: Tensor | None) -> Tensor:
    """InfoNCE (Eq. 1) with one positive and K negatives per query, in float32, mean over the B queries.

    Args:
        q: (B, D) queries.
        k: (B, D) unit vectors, the positive of each query.
        negatives: (K, D) unit vectors.
        temperature: divides the cosine similarities.
        excluded: (B, K) bool, True for pairs to leave out; None to keep all.
    """
    q = F.normalize(q.float(), dim=1)
    others = similarities(q, negatives)
    if excluded is not None:
        others = others.masked_fill(excluded, -torch.inf)
    agreement = (q * k).sum(dim=1, keepdim=True)
    logits = torch.cat([agreement, others], dim=1) / temperature  # (B, 1 + K)
    return F.cross_entropy(logits, torch.zeros(len(q), dtype=torch.int64, device=q.device))


class MoCo(Method):
    """The target, an EMA of backbone and projector, is the paper's key encoder.

    Differs from the paper: shuffled BatchNorm, which prevents a query from recognising its key by shared batch
    statistics, is replaced by per-view statistics of the global batch, as in MoCo v3, so that k processes equal one. In
    the authors' CIFAR-10 demo, small batches have the role of shuffling; without them accuracy is 4 points lower after
    800 epochs. Keys in the queue from the query's own example, few on ImageNet but many on small data, are excluded.
    """

    min_views: ClassVar[int] = 2

    def __init__(
        self,
        backbone: nn.Module,
        hidden_dim: int,
        out_dim: int,
        queue_size: int,
        temperature: float,
        ema_decay: float,
    ):
        super().__init__(backbone)
        positive(hidden_dim=hidden_dim, out_dim=out_dim, queue_size=queue_size, temperature=temperature)
        fraction(ema_decay=ema_decay)
        # MoCo v2's head has no BatchNorm.
        self.projector = nn.Sequential(
            nn.Linear(self.backbone.num_features, hidden_dim), nn.ReLU(inplace=True), nn.Linear(hidden_dim, out_dim)
        )
        self.target = ema_copy(nn.Sequential(backbone, self.projector))
        self.queue = Queue(queue_size, out_dim)
        self.temperature = temperature
        self.ema_decay = ema_decay

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """InfoNCE, mean over both directions (the demo sums), or over all pairs of a global view and another view."""
        q = [self.projector(self.backbone(view)) for view in batch.views]
        with no_grad():
            k = [F.normalize(self.target(view).float(), dim=1) for view in global_views(batch.views)]
        pairs = view_pairs(batch.views)
        own = self.queue.same_example(batch.indices)
        losses = [queue_info_nce(q[j], k[i], self.queue.keys, self.temperature, own) for i, j in pairs]
        if self.training:
            for keys in k:  # per view, so that the order does not depend on the number of processes
                self.queue.push(keys, batch.indices)
        return {"loss": torch.stack(losses).mean()}

    def after_step(self, progress: float) -> None:
        """Updates the target, with a constant decay."""
        ema_update(self.target, nn.Sequential(self.backbone, self.projector), self.ema_decay)
