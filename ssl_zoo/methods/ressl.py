"""ReSSL: a strongly augmented view should have the same similarities to past examples as a weakly augmented view.

Zheng, You, Wang, Qian, Zhang, Wang, Xu, "ReSSL: Relational Self-Supervised Learning with Weak Augmentation", NeurIPS
2021, https://arxiv.org/abs/2107.09282, Section 3 and Algorithm 1. Official code: github.com/KyleZheng1997/ReSSL.
"""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn, no_grad

from ssl_zoo.checks import fraction, positive
from ssl_zoo.functional import ema_copy, ema_update, similarities
from ssl_zoo.method import Batch, Method
from ssl_zoo.nn.queue import Queue


def relations(z: Tensor, keys: Tensor, temperature: float, excluded: Tensor) -> Tensor:
    """Log-softmax (B, K) over the cosine similarities of z with the keys.

    Args:
        z: (B, D).
        keys: (K, D) unit vectors.
        temperature: divides the similarities.
        excluded: (B, K) bool, True for pairs to leave out. Their logits are finite, because 0 * -inf in the
            cross-entropy would be NaN.
    """
    logits = similarities(F.normalize(z.float(), dim=1), keys) / temperature
    return logits.masked_fill(excluded, torch.finfo(logits.dtype).min).log_softmax(dim=1)


class ReSSL(Method):
    """The teacher sees the first view, which should be weakly augmented; the student sees all others.

    The queue holds the teacher's projections of past first views; those of the same example are excluded. Suitable
    views are defined in conf/views/ressl.
    """

    min_views: ClassVar[int] = 2

    def __init__(
        self,
        backbone: nn.Module,
        hidden_dim: int,
        out_dim: int,
        queue_size: int,
        temperature: float,
        teacher_temperature: float,
        ema_decay: float,
    ):
        super().__init__(backbone)
        positive(hidden_dim=hidden_dim, out_dim=out_dim, queue_size=queue_size)
        positive(temperature=temperature, teacher_temperature=teacher_temperature)
        fraction(ema_decay=ema_decay)
        if teacher_temperature >= temperature:
            raise ValueError(
                f"method.teacher_temperature={teacher_temperature} must be below method.temperature={temperature}: "
                "the teacher's relations are the sharper ones"
            )
        self.projector = nn.Sequential(
            nn.Linear(self.backbone.num_features, hidden_dim), nn.ReLU(inplace=True), nn.Linear(hidden_dim, out_dim)
        )
        self.teacher = ema_copy(nn.Sequential(backbone, self.projector))
        self.queue = Queue(queue_size, out_dim)
        self.temperature = temperature
        self.teacher_temperature = teacher_temperature
        self.ema_decay = ema_decay

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Cross-entropy of the teacher's and the student's relations, mean over the batch and the student's views."""
        weak, *strong = batch.views
        with no_grad():
            t = F.normalize(self.teacher(weak).float(), dim=1)
            own = self.queue.same_example(batch.indices)  # (B, K)
            targets = relations(t, self.queue.keys, self.teacher_temperature, own).exp()
        z = [self.projector(self.backbone(view)) for view in strong]
        losses = [-(targets * relations(x, self.queue.keys, self.temperature, own)).sum(dim=1).mean() for x in z]
        if self.training:
            self.queue.push(t, batch.indices)
        return {"loss": torch.stack(losses).mean()}

    def after_step(self, progress: float) -> None:
        """Updates the teacher, with a constant decay."""
        ema_update(self.teacher, nn.Sequential(self.backbone, self.projector), self.ema_decay)
