"""iBOT: DINO on whole views, and the same self-distillation for the tokens that the student does not see.

Zhou, Wei, Wang, Shen, Xie, Yuille, Kong, "iBOT: Image BERT Pre-Training with Online Tokenizer", ICLR 2022,
https://arxiv.org/abs/2111.07832, Section 3, Eqs. 2-3. Official code: github.com/bytedance/ibot.
Letters: B batch, V global views, N tokens of a view, k columns that hold the masked tokens of an
example, D width, K prototypes.
"""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_zoo.backbones.tokens import require_tokens
from ssl_zoo.checks import fraction, positive, ramp, share
from ssl_zoo.distributed import all_reduce_mean
from ssl_zoo.functional import ema_copy, ema_update_cosine, embed_views, global_views, mean_over, view_pairs
from ssl_zoo.method import Batch, Method
from ssl_zoo.nn.heads import DINOHead
from ssl_zoo.nn.masks import BlockMask, mask_token
from ssl_zoo.nn.token_masking import Hidden, hide, read_tokens
from ssl_zoo.schedules import linear_ramp


class IBOT(Method):
    """One head serves whole views and tokens; tokens are hidden in blocks, for a text in spans.

    Differs from the official code: (1) the loss on whole views acts on the backbone's pooled vector, the mean of the
    tokens by default, instead of the class token; (2) a draw picks one global view of each example to be masked, and
    `mask_ratio` is fixed, where each view is masked with probability 0.5 by a ratio drawn from [0.1, 0.5]: with two
    views half of them are masked in both, and here shapes are static; (3) the tokens' centre is that of masked tokens;
    (4) every masked token counts alike, where there each view does: it matters for texts, whose lengths differ.
    """

    min_views: ClassVar[int] = 2
    center: Tensor
    token_center: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        hidden_dim: int,
        out_dim: int,
        num_prototypes: int,
        temperature: float,
        teacher_temperature: list[float],
        freeze_until: float,
        center_decay: float,
        ema_decay: float,
        mask_ratio: float,
    ):
        """teacher_temperature: [first, last, share]: from first to last, linearly over this share of the run.
        freeze_until: the prototypes (the last layer) learn from this share of the run on."""
        super().__init__(backbone)
        require_tokens(backbone)
        positive(hidden_dim=hidden_dim, out_dim=out_dim, num_prototypes=num_prototypes, temperature=temperature)
        fraction(center_decay=center_decay, ema_decay=ema_decay)
        ramp(teacher_temperature=teacher_temperature)
        share(freeze_until=freeze_until)
        self.mask = BlockMask(mask_ratio)
        self.mask_token = mask_token(self.backbone.num_features)
        self.projector = DINOHead(self.backbone.num_features, hidden_dim, out_dim, num_prototypes)
        self.teacher, self.teacher_projector = ema_copy(backbone), ema_copy(self.projector)
        self.register_buffer("center", torch.zeros(num_prototypes))
        self.register_buffer("token_center", torch.zeros(num_prototypes))
        self.temperature, self.teacher_temperature = temperature, list(teacher_temperature)
        self.freeze_until, self.center_decay, self.ema_decay = freeze_until, center_decay, ema_decay

    @torch.no_grad()
    def targets(self, x: Tensor, hidden: Hidden, progress: float) -> tuple[Tensor, Tensor]:
        """Teacher distributions: (B * V, K) of views, (B, k, K) of hidden tokens; in training moves the centres."""
        pooled, tokens = read_tokens(self.teacher, x, hidden, mask_token=None)
        scores, token_scores = self.teacher_projector(pooled), self.teacher_projector(tokens)
        temperature = linear_ramp(*self.teacher_temperature, progress)
        targets = ((scores - self.center) / temperature).softmax(dim=-1)
        token_targets = ((token_scores - self.token_center) / temperature).softmax(dim=-1)
        if self.training:
            token_sum = (token_scores * hidden.valid.unsqueeze(-1)).sum(dim=(0, 1))
            token_mean = all_reduce_mean(token_sum) / all_reduce_mean(hidden.valid.sum().float()).clamp(min=1)
            self.center.lerp_(all_reduce_mean(scores.mean(dim=0)), 1 - self.center_decay)
            self.token_center.lerp_(token_mean, 1 - self.center_decay)
        return targets, token_targets

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """The sum of two cross-entropies. "pooled": of views, mean over the batch and over all pairs of a global view
        and another. "tokens": of masked tokens, mean over the global batch's, over V as unmasked views count 0."""
        x = torch.stack(global_views(batch.views), dim=1)  # (B, V, ...)
        hidden, frozen = hide(x, self.backbone, self.mask), progress < self.freeze_until
        targets, token_targets = self.targets(x, hidden, progress)
        t = targets.unflatten(0, x.shape[:2]).unbind(dim=1)

        pooled, tokens = read_tokens(self.backbone, x, hidden, self.mask_token)
        h = [*pooled.unflatten(0, x.shape[:2]).unbind(dim=1), *embed_views(self.backbone, batch.views[x.shape[1] :])]
        s = (self.projector(torch.cat(h), frozen) / self.temperature).chunk(len(h))
        view_loss = torch.stack([F.cross_entropy(s[j], t[i]) for i, j in view_pairs(batch.views)]).mean()

        logs = (self.projector(tokens, frozen) / self.temperature).log_softmax(dim=-1)  # (B, k, K)
        token_loss = mean_over(-(token_targets * logs).sum(dim=-1), hidden.valid) / x.shape[1]
        return {"loss": view_loss + token_loss, "pooled": view_loss, "tokens": token_loss}

    def after_step(self, progress: float) -> None:
        ema_update_cosine(self.teacher, self.backbone, self.ema_decay, progress)
        ema_update_cosine(self.teacher_projector, self.projector, self.ema_decay, progress)
