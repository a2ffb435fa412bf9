"""DINOv2: DINO on whole views, iBOT on masked tokens with a separate head, and a term that spreads the features.

Oquab, Darcet, Moutakanni et al., "DINOv2: Learning Robust Visual Features without Supervision", TMLR 2024,
https://arxiv.org/abs/2304.07193, Section 4. KoLeo: Sablayrolles et al., "Spreading vectors for similarity search",
2019, https://arxiv.org/abs/1806.03198. Official code: github.com/facebookresearch/dinov2.
Letters: B batch, V global views, N tokens of a view, k masked tokens of an example, D width, K prototypes, W processes.
"""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_zoo.backbones.tokens import require_tokens
from ssl_zoo.checks import fraction, positive, share
from ssl_zoo.distributed import all_gather
from ssl_zoo.functional import ema_copy, ema_update_cosine, embed_views, global_views, mean_over, sinkhorn, view_pairs
from ssl_zoo.method import Batch, Method
from ssl_zoo.nn.heads import DINOHead
from ssl_zoo.nn.masks import BlockMask, mask_token
from ssl_zoo.nn.token_masking import MaskedTokens, encode_views, mask_one_view
from ssl_zoo.schedules import linear_warmup

SINKHORN_ITERATIONS = 3  # Section 4; not a setting in the official code either
KOLEO_MIN_DISTANCE = 1e-2


def koleo(x: Tensor) -> Tensor:
    """Mean of -log(distance to the nearest other example) over the global batch, for x (B, D) after normalisation.

    Distances are clamped at KOLEO_MIN_DISTANCE and have no gradient below it. The gradient of the official code is
    1 / distance, in a direction determined by rounding; for equal examples it exceeds 1e5 and dominates all others.
    """
    with torch.autocast(device_type=x.device.type, enabled=False):
        x = F.normalize(all_gather(x.float()), dim=1)  # (WB, D)
        itself = torch.eye(len(x), dtype=torch.bool, device=x.device)
        nearest = (x @ x.T).masked_fill(itself, -2).argmax(dim=1)
        return -F.pairwise_distance(x, x[nearest], eps=1e-8).clamp(min=KOLEO_MIN_DISTANCE).log().mean()


class DINOv2(Method):
    """Teacher scores are balanced by Sinkhorn-Knopp over the global batch, separately for views and tokens.

    Differs from the official code (named second): (1) KoLeo is the mean over the global views, not the sum over two;
    (2) KoLeo is over the global batch, not that of one GPU; (3) KoLeo and the loss on views use the pooled vector, by
    default the mean of the tokens, not the class token; (4) one global view of each example is masked, with a fixed
    ratio, instead of half of all views with a ratio in [0.1, 0.5]; (5) all masked tokens have equal weight, instead of
    all views, which matters for texts of different lengths; (6) KoLeo has a minimum distance, see `koleo`.

    Args:
        teacher_temperature_start: at the start of the run; changes linearly to `teacher_temperature`.
        teacher_temperature_warmup: share of the run after which `teacher_temperature` is reached.
        freeze_until: share of the run during which the prototypes are frozen.
        ema_decay: of the teacher; rises to 1 over the run along a half-cosine.
    """

    min_views: ClassVar[int] = 2

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
        ema_decay: float,
        mask_ratio: float,
        koleo_weight: float,
    ):
        super().__init__(backbone)
        require_tokens(backbone)
        positive(hidden_dim=hidden_dim, out_dim=out_dim, num_prototypes=num_prototypes, temperature=temperature)
        positive(koleo_weight=koleo_weight)
        fraction(ema_decay=ema_decay)
        positive(teacher_temperature=teacher_temperature, teacher_temperature_start=teacher_temperature_start)
        share(teacher_temperature_warmup=teacher_temperature_warmup, freeze_until=freeze_until)
        self.mask = BlockMask(mask_ratio)
        self.mask_token = mask_token(self.backbone.num_features)
        self.projector = DINOHead(self.backbone.num_features, hidden_dim, out_dim, num_prototypes)
        self.token_projector = DINOHead(self.backbone.num_features, hidden_dim, out_dim, num_prototypes)
        self.teacher = ema_copy(nn.ModuleList([backbone, self.projector, self.token_projector]))
        self.temperature = temperature
        self.teacher_temperature = teacher_temperature
        self.teacher_temperature_start = teacher_temperature_start
        self.teacher_temperature_warmup = teacher_temperature_warmup
        self.freeze_until = freeze_until
        self.ema_decay = ema_decay
        self.koleo_weight = koleo_weight

    @torch.no_grad()
    def targets(self, x: Tensor, masked: MaskedTokens, progress: float) -> tuple[Tensor, Tensor]:
        """The teacher's distributions (B * V, K) for views and (B, k, K) for masked tokens."""
        backbone, projector, token_projector = self.teacher.children()
        pooled, tokens = encode_views(backbone, x, masked, mask_token=None)
        temperature = linear_warmup(
            self.teacher_temperature_start, self.teacher_temperature, self.teacher_temperature_warmup, progress
        )
        targets = sinkhorn(projector(pooled), temperature, SINKHORN_ITERATIONS)
        scores = token_projector(tokens).flatten(0, 1)
        token_targets = sinkhorn(scores, temperature, SINKHORN_ITERATIONS, masked.valid.flatten())
        return targets, token_targets.unflatten(0, tokens.shape[:2])

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Sum of three losses: `pooled`, `tokens` and `koleo_weight` times `koleo`, a mean over the global views.

        `pooled` is the cross-entropy of views, mean over the batch and all pairs of a global view and another view.
        `tokens` is the cross-entropy of masked tokens, mean over those of the global batch; it is divided by V, since
        views that are not masked count as 0.
        """
        x = torch.stack(global_views(batch.views), dim=1)  # (B, V, ...)
        masked = mask_one_view(x, self.backbone, self.mask)
        frozen = progress < self.freeze_until
        targets, token_targets = self.targets(x, masked, progress)
        t = targets.unflatten(0, x.shape[:2]).unbind(dim=1)
        pooled, tokens = encode_views(self.backbone, x, masked, self.mask_token)
        global_h = pooled.unflatten(0, x.shape[:2]).unbind(dim=1)
        h = [*global_h, *embed_views(self.backbone, batch.views[x.shape[1] :])]
        s = (self.projector(torch.cat(h), frozen) / self.temperature).chunk(len(h))
        view_loss = torch.stack([F.cross_entropy(s[j], t[i]) for i, j in view_pairs(batch.views)]).mean()
        logs = (self.token_projector(tokens, frozen) / self.temperature).log_softmax(dim=-1)  # (B, k, K)
        token_loss = mean_over(-(token_targets * logs).sum(dim=-1), masked.valid) / x.shape[1]
        spread = torch.stack([koleo(view) for view in global_h]).mean()
        scalars = {"pooled": view_loss, "tokens": token_loss, "koleo": spread}
        return {"loss": view_loss + token_loss + self.koleo_weight * spread, **scalars}

    def after_step(self, progress: float) -> None:
        """Updates the teacher."""
        online = nn.ModuleList([self.backbone, self.projector, self.token_projector])
        ema_update_cosine(self.teacher, online, self.ema_decay, progress)
