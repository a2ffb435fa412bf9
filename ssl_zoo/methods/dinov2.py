"""DINOv2: DINO on whole views, iBOT on hidden tokens with a head of its own, and a term that keeps neighbours apart.

Oquab, Darcet, Moutakanni et al., "DINOv2: Learning Robust Visual Features without Supervision", TMLR 2024,
https://arxiv.org/abs/2304.07193, Section 4. KoLeo: Sablayrolles et al., "Spreading vectors for similarity search",
2019, https://arxiv.org/abs/1806.03198. Official code: github.com/facebookresearch/dinov2.
Letters: B batch, V global views, N tokens of a view, k columns that hold the masked tokens of an
example, D width, K prototypes, W processes.
"""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_zoo.backbones.tokens import require_tokens
from ssl_zoo.checks import fraction, positive, ramp, share
from ssl_zoo.distributed import all_gather
from ssl_zoo.functional import ema_copy, ema_update_cosine, embed_views, global_views, mean_over, sinkhorn, view_pairs
from ssl_zoo.method import Batch, Method
from ssl_zoo.nn.heads import DINOHead
from ssl_zoo.nn.masks import BlockMask, mask_token
from ssl_zoo.nn.token_masking import Hidden, hide, read_tokens
from ssl_zoo.schedules import linear_ramp

SINKHORN_ITERATIONS = 3  # Section 4; not a setting in the official code either


KOLEO_FLOOR = 1e-2


def koleo(x: Tensor) -> Tensor:
    """Mean of -log(distance to the nearest other example) over the global batch, of unit vectors. x: (B, D).

    Distances below KOLEO_FLOOR count as that, without a gradient. There the official code's gradient, 1 / distance in
    the direction of what rounding left of it, outgrows all others: examples that are equal, which no step can tell
    apart, have one of 1e5 and more.
    """
    with torch.autocast(device_type=x.device.type, enabled=False):
        x = F.normalize(all_gather(x.float()), dim=1)  # (WB, D)
        itself = torch.eye(len(x), dtype=torch.bool, device=x.device)
        nearest = (x @ x.T).masked_fill(itself, -2).argmax(dim=1)
        return -F.pairwise_distance(x, x[nearest], eps=1e-8).clamp(min=KOLEO_FLOOR).log().mean()


class DINOv2(Method):
    """Teacher scores are balanced by Sinkhorn-Knopp over the global batch, views and tokens each on their own.

    Differs from the official code: (1) KoLeo is the mean over the global views, there the sum over two; (2) it is over
    the global batch, not a GPU's; (3) it and the loss on views act on the pooled vector, the mean of the tokens by
    default, not the class token; (4) a draw picks one global view of each example to be masked and `mask_ratio` is
    fixed, where half of all views are masked, by [0.1, 0.5]; (5) every masked token counts alike, where there each view
    does: it matters for texts, whose lengths differ; (6) KoLeo has a floor, see `koleo`.
    """

    min_views: ClassVar[int] = 2

    def __init__(
        self,
        backbone: nn.Module,
        hidden_dim: int,
        out_dim: int,
        num_prototypes: int,
        temperature: float,
        teacher_temperature: list[float],
        freeze_until: float,
        ema_decay: float,
        mask_ratio: float,
        koleo_weight: float,
    ):
        """teacher_temperature: [first, last, share of the run]; freeze_until: prototypes learn from this share on."""
        super().__init__(backbone)
        require_tokens(backbone)
        positive(hidden_dim=hidden_dim, out_dim=out_dim, num_prototypes=num_prototypes, temperature=temperature)
        positive(koleo_weight=koleo_weight)
        fraction(ema_decay=ema_decay)
        ramp(teacher_temperature=teacher_temperature)
        share(freeze_until=freeze_until)
        self.mask = BlockMask(mask_ratio)
        self.mask_token = mask_token(self.backbone.num_features)
        self.projector = DINOHead(self.backbone.num_features, hidden_dim, out_dim, num_prototypes)
        self.token_projector = DINOHead(self.backbone.num_features, hidden_dim, out_dim, num_prototypes)
        self.teacher = ema_copy(nn.ModuleList([backbone, self.projector, self.token_projector]))
        self.temperature, self.teacher_temperature = temperature, list(teacher_temperature)
        self.freeze_until, self.ema_decay, self.koleo_weight = freeze_until, ema_decay, koleo_weight

    @torch.no_grad()
    def targets(self, x: Tensor, hidden: Hidden, progress: float) -> tuple[Tensor, Tensor]:
        """The teacher's distributions: (B * V, K) of views, (B, k, K) of hidden tokens."""
        backbone, projector, token_projector = self.teacher.children()
        pooled, tokens = read_tokens(backbone, x, hidden, mask_token=None)
        temperature = linear_ramp(*self.teacher_temperature, progress)
        targets = sinkhorn(projector(pooled), temperature, SINKHORN_ITERATIONS)
        scores, masked = token_projector(tokens).flatten(0, 1), hidden.valid.flatten()
        token_targets = sinkhorn(scores, temperature, SINKHORN_ITERATIONS, masked)
        return targets, token_targets.unflatten(0, tokens.shape[:2])

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """ "pooled": cross-entropy of views, mean over the batch and over all pairs of a global view and another.
        "tokens": that of masked tokens, mean over those of the global batch, over V as unmasked views count 0.
        "koleo": mean over the global views."""
        x = torch.stack(global_views(batch.views), dim=1)  # (B, V, ...)
        hidden, frozen = hide(x, self.backbone, self.mask), progress < self.freeze_until
        targets, token_targets = self.targets(x, hidden, progress)
        t = targets.unflatten(0, x.shape[:2]).unbind(dim=1)
        pooled, tokens = read_tokens(self.backbone, x, hidden, self.mask_token)
        own = pooled.unflatten(0, x.shape[:2]).unbind(dim=1)
        h = [*own, *embed_views(self.backbone, batch.views[x.shape[1] :])]
        s = (self.projector(torch.cat(h), frozen) / self.temperature).chunk(len(h))
        view_loss = torch.stack([F.cross_entropy(s[j], t[i]) for i, j in view_pairs(batch.views)]).mean()
        logs = (self.token_projector(tokens, frozen) / self.temperature).log_softmax(dim=-1)  # (B, k, K)
        token_loss = mean_over(-(token_targets * logs).sum(dim=-1), hidden.valid) / x.shape[1]
        spread = torch.stack([koleo(view) for view in own]).mean()
        scalars = {"pooled": view_loss, "tokens": token_loss, "koleo": spread}
        return {"loss": view_loss + token_loss + self.koleo_weight * spread, **scalars}

    def after_step(self, progress: float) -> None:
        online = nn.ModuleList([self.backbone, self.projector, self.token_projector])
        ema_update_cosine(self.teacher, online, self.ema_decay, progress)
