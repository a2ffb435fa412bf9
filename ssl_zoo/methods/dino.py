"""DINO: predict the centred and sharpened output distribution of an EMA teacher for another view.

Caron, Touvron, Misra, Jegou, Mairal, Bojanowski, Joulin, "Emerging Properties in Self-Supervised Vision Transformers",
ICCV 2021, https://arxiv.org/abs/2104.14294, Algorithm 1, Eqs. 1-4. Official code: github.com/facebookresearch/dino.
"""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_zoo.checks import fraction, positive, share
from ssl_zoo.distributed import all_reduce_mean
from ssl_zoo.functional import ema_copy, ema_update_cosine, embed_views, global_views, view_pairs
from ssl_zoo.method import Batch, Method
from ssl_zoo.nn.heads import DINOHead
from ssl_zoo.schedules import linear_warmup


class DINO(Method):
    """The student, backbone and projector, sees all views; the teacher, an EMA of both, sees the global views.

    Args:
        teacher_temperature_start: at the start of the run; changes linearly to `teacher_temperature`.
        teacher_temperature_warmup: share of the run after which `teacher_temperature` is reached.
        freeze_until: share of the run during which the prototypes (DINO's last layer) are frozen.
        ema_decay: of the teacher; rises to 1 over the run along a half-cosine.
    """

    min_views: ClassVar[int] = 2
    center: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        hidden_dim: int,
        out_dim: int,
        num_prototypes: int,
        temperature: float,
        teacher_temperature: float,
        teacher_temperature_start: float,
        teacher_temperature_warmup: float,
        freeze_until: float,
        center_decay: float,
        ema_decay: float,
    ):
        super().__init__(backbone)
        positive(hidden_dim=hidden_dim, out_dim=out_dim, num_prototypes=num_prototypes, temperature=temperature)
        fraction(center_decay=center_decay, ema_decay=ema_decay)
        positive(teacher_temperature=teacher_temperature, teacher_temperature_start=teacher_temperature_start)
        share(teacher_temperature_warmup=teacher_temperature_warmup, freeze_until=freeze_until)
        self.projector = DINOHead(self.backbone.num_features, hidden_dim, out_dim, num_prototypes)
        self.teacher = ema_copy(nn.Sequential(backbone, self.projector))
        self.register_buffer("center", torch.zeros(num_prototypes))
        self.temperature = temperature
        self.teacher_temperature = teacher_temperature
        self.teacher_temperature_start = teacher_temperature_start
        self.teacher_temperature_warmup = teacher_temperature_warmup
        self.freeze_until = freeze_until
        self.center_decay = center_decay
        self.ema_decay = ema_decay

    @torch.no_grad()
    def targets(self, views: list[Tensor], progress: float) -> tuple[Tensor, ...]:
        """The teacher's distributions (B, K) for each global view; in training, then updates the centre."""
        views = global_views(views)
        scores = torch.cat(embed_views(self.teacher, views))
        temperature = linear_warmup(
            self.teacher_temperature_start, self.teacher_temperature, self.teacher_temperature_warmup, progress
        )
        distributions = ((scores - self.center) / temperature).softmax(dim=1)
        if self.training:
            self.center.lerp_(all_reduce_mean(scores.mean(dim=0)), 1 - self.center_decay)  # Eq. 4
        return distributions.chunk(len(views))

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Cross-entropy (Eq. 3), mean over the batch and over all pairs of a global view and another view."""
        h = torch.cat(embed_views(self.backbone, batch.views))
        s = self.projector(h, frozen=progress < self.freeze_until).chunk(len(batch.views))
        t = self.targets(batch.views, progress)
        losses = [F.cross_entropy(s[j] / self.temperature, t[i]) for i, j in view_pairs(batch.views)]
        return {"loss": torch.stack(losses).mean()}

    def after_step(self, progress: float) -> None:
        """Updates the teacher."""
        online = nn.Sequential(self.backbone, self.projector)
        ema_update_cosine(self.teacher, online, self.ema_decay, progress)
