"""iBOT: DINO on whole views, and the same self-distillation for tokens that are masked for the student.

Zhou, Wei, Wang, Shen, Xie, Yuille, Kong, "iBOT: Image BERT Pre-Training with Online Tokenizer", ICLR 2022,
https://arxiv.org/abs/2111.07832, Section 3, Eqs. 2-3. Official code: github.com/bytedance/ibot.
Letters: B batch, V global views, N tokens of a view, k masked tokens of an example, D width, K prototypes.
"""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_zoo.backbones.tokens import require_tokens
from ssl_zoo.checks import fraction, positive, share
from ssl_zoo.distributed import all_reduce_mean
from ssl_zoo.functional import ema_copy, ema_update_cosine, embed_views, global_views, mean_over, view_pairs
from ssl_zoo.method import Batch, Method
from ssl_zoo.nn.heads import DINOHead
from ssl_zoo.nn.masks import BlockMask, mask_token
from ssl_zoo.nn.token_masking import MaskedTokens, encode_views, mask_one_view
from ssl_zoo.schedules import linear_warmup


class IBOT(Method):
    """One head serves whole views and tokens; tokens are masked in blocks, in a text in spans.

    Differs from the official code: (1) the loss on whole views uses the backbone's pooled vector, by default the mean
    of the tokens, instead of the class token; (2) one global view of each example is masked, with a fixed ratio, so
    that shapes are static, instead of each view with probability 0.5 and a ratio in [0.1, 0.5]; (3) the centre of the
    tokens is that of masked tokens; (4) all masked tokens have equal weight, instead of all views, which matters for
    texts of different lengths.

    Args:
        teacher_temperature_start: at the start of the run; changes linearly to `teacher_temperature`.
        teacher_temperature_warmup: share of the run after which `teacher_temperature` is reached.
        freeze_until: share of the run during which the prototypes (the last layer) are frozen.
        ema_decay: of the teacher; rises to 1 over the run along a half-cosine.
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
        teacher_temperature: float,
        teacher_temperature_start: float,
        teacher_temperature_warmup: float,
        freeze_until: float,
        center_decay: float,
        ema_decay: float,
        mask_ratio: float,
    ):
        super().__init__(backbone)
        require_tokens(backbone)
        positive(hidden_dim=hidden_dim, out_dim=out_dim, num_prototypes=num_prototypes, temperature=temperature)
        fraction(center_decay=center_decay, ema_decay=ema_decay)
        positive(teacher_temperature=teacher_temperature, teacher_temperature_start=teacher_temperature_start)
        share(teacher_temperature_warmup=teacher_temperature_warmup, freeze_until=freeze_until)
        self.mask = BlockMask(mask_ratio)
        self.mask_token = mask_token(self.backbone.num_features)
        self.projector = DINOHead(self.backbone.num_features, hidden_dim, out_dim, num_prototypes)
        self.teacher = ema_copy(backbone)
        self.teacher_projector = ema_copy(self.projector)
        self.register_buffer("center", torch.zeros(num_prototypes))
        self.register_buffer("token_center", torch.zeros(num_prototypes))
        self.temperature = temperature
        self.teacher_temperature = teacher_temperature
        self.teacher_temperature_start = teacher_temperature_start
        self.teacher_temperature_warmup = teacher_temperature_warmup
        self.freeze_until = freeze_until
        self.center_decay = center_decay
        self.ema_decay = ema_decay

    @torch.no_grad()
    def targets(self, x: Tensor, masked: MaskedTokens, progress: float) -> tuple[Tensor, Tensor]:
        """The teacher's distributions (B * V, K) for views and (B, k, K) for masked tokens; updates the centres."""
        pooled, tokens = encode_views(self.teacher, x, masked, mask_token=None)
        scores, token_scores = self.teacher_projector(pooled), self.teacher_projector(tokens)
        temperature = linear_warmup(
            self.teacher_temperature_start, self.teacher_temperature, self.teacher_temperature_warmup, progress
        )
        targets = ((scores - self.center) / temperature).softmax(dim=-1)
        token_targets = ((token_scores - self.token_center) / temperature).softmax(dim=-1)
        if self.training:
            token_sum = (token_scores * masked.valid.unsqueeze(-1)).sum(dim=(0, 1))
            token_mean = all_reduce_mean(token_sum) / all_reduce_mean(masked.valid.sum().float()).clamp(min=1)
            self.center.lerp_(all_reduce_mean(scores.mean(dim=0)), 1 - self.center_decay)
            self.token_center.lerp_(token_mean, 1 - self.center_decay)
        return targets, token_targets

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Sum of two cross-entropies, `pooled` and `tokens`.

        `pooled` is that of views, mean over the batch and all pairs of a global view and another view. `tokens` is that
        of masked tokens, mean over those of the global batch; it is divided by V, since views that are not masked count
        as 0.
        """
        x = torch.stack(global_views(batch.views), dim=1)  # (B, V, ...)
        masked = mask_one_view(x, self.backbone, self.mask)
        frozen = progress < self.freeze_until
        targets, token_targets = self.targets(x, masked, progress)
        t = targets.unflatten(0, x.shape[:2]).unbind(dim=1)

        pooled, tokens = encode_views(self.backbone, x, masked, self.mask_token)
        h = [*pooled.unflatten(0, x.shape[:2]).unbind(dim=1), *embed_views(self.backbone, batch.views[x.shape[1] :])]
        s = (self.projector(torch.cat(h), frozen) / self.temperature).chunk(len(h))
        view_loss = torch.stack([F.cross_entropy(s[j], t[i]) for i, j in view_pairs(batch.views)]).mean()

        logs = (self.projector(tokens, frozen) / self.temperature).log_softmax(dim=-1)  # (B, k, K)
        token_loss = mean_over(-(token_targets * logs).sum(dim=-1), masked.valid) / x.shape[1]
        return {"loss": view_loss + token_loss, "pooled": view_loss, "tokens": token_loss}

    def after_step(self, progress: float) -> None:
        """Updates the teacher and its projector."""
        ema_update_cosine(self.teacher, self.backbone, self.ema_decay, progress)
        ema_update_cosine(self.teacher_projector, self.projector, self.ema_decay, progress)
