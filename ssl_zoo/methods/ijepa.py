"""I-JEPA: from a part of an image, predict the vectors that a slow copy of the network gives to other parts of it.

Assran, Duval, Misra, Bojanowski, Vincent, Rabbat, LeCun, Ballas, "Self-Supervised Learning from Images with a
Joint-Embedding Predictive Architecture", CVPR 2023, https://arxiv.org/abs/2301.08243, Section 3. Official code:
github.com/facebookresearch/ijepa. Letters: B images, N tokens, M of them context, T target blocks of K tokens, D width.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from ssl_zoo.backbones.tokens import eligible, encode, grid, require_tokens, sincos, take
from ssl_zoo.checks import fraction, positive
from ssl_zoo.distributed import broadcast, rand_rows
from ssl_zoo.functional import ema_copy, ema_update, global_views, mean_over
from ssl_zoo.method import Batch, Method
from ssl_zoo.nn.masks import as_mask, choose_tokens, mask_token, target_blocks, unmasked, used_columns


class Division(NamedTuple):
    """What is context and what is target in each row of a batch.

    context: (B, M) int64, the tokens that the context encoder sees, then padding.
    blocks: (B, T, K) int64, tokens of the target blocks; inside: (B, T, K) bool, False past the block of a shorter row;
    counted: (B, T, K) bool, the targets that count, which are not part of the context.
    """

    context: Tensor
    blocks: Tensor
    inside: Tensor
    counted: Tensor


class Predictor(nn.Module):
    """A narrow ViT that sees the context's vectors, and one learned vector at each place to be predicted."""

    def __init__(self, dim: int, hidden_dim: int, depth: int, num_heads: int):
        super().__init__()
        self.project = nn.Linear(dim, hidden_dim)
        self.mask_token = mask_token(hidden_dim)
        blocks = [Block(hidden_dim, num_heads, qkv_bias=True) for _ in range(depth)]
        self.blocks = nn.Sequential(*blocks, nn.LayerNorm(hidden_dim), nn.Linear(hidden_dim, dim))

    def forward(self, x: Tensor, here: Tensor, there: Tensor, valid: Tensor | None) -> Tensor:
        """x (B, M, D), the context; here (B, M, hidden_dim) and there (B, K, hidden_dim), the positions of context and
        targets; valid (B, M + K) bool, those of both that are attended to, at least one; None: all -> (B, K, D)."""
        x = torch.cat([self.project(x) + here, self.mask_token + there], dim=1)
        *blocks, norm, last = self.blocks
        for block in blocks:
            x = block(x, attn_mask=None if valid is None else valid[:, None, None, :])
        return last(norm(x[:, here.shape[1] :]))


class IJEPA(Method):
    """Context encoder, predictor, and an EMA of the former as target encoder, which sees the whole image.

    Differs from the official code, so that shapes are the same on all processes: there the context is a block of 85 to
    100 % of the image less the targets, cut to the batch's smallest in reading order; here it is a constant share of
    the tokens, sampled outside all targets. Where these do not suffice, some targets become context instead. Positions
    and class token are the backbone's own; there positions are fixed sines and there is no class token. The predictor's
    linear layers start as torch's do; there from a truncated normal of 0.02, with the last of block i over sqrt(2 i).
    """

    def __init__(
        self,
        backbone: nn.Module,
        context_ratio: float,
        num_targets: int,
        target_scale: list[float],
        target_aspect: list[float],
        predictor_dim: int,
        predictor_depth: int,
        predictor_num_heads: int,
        ema_decay: float,
    ):
        """target_scale, target_aspect: ranges of a block's share of the tokens and of its height over its width."""
        super().__init__(backbone)
        require_tokens(backbone)
        fraction(context_ratio=context_ratio, ema_decay=ema_decay)
        positive(num_targets=num_targets, predictor_dim=predictor_dim)
        positive(predictor_depth=predictor_depth, predictor_num_heads=predictor_num_heads)
        if predictor_dim % 4 or predictor_dim % predictor_num_heads:
            raise ValueError(f"method.predictor_dim={predictor_dim} must be a multiple of 4 and of predictor_num_heads")
        for name, (low, high) in {"target_scale": target_scale, "target_aspect": target_aspect}.items():
            if not 0 < low <= high:
                raise ValueError(f"method.{name}=[{low},{high}] must be two numbers above 0, the smaller first")
        self.context_ratio, self.num_targets, self.ema_decay = context_ratio, num_targets, ema_decay
        self.target_scale, self.target_aspect, self.predictor_dim = target_scale, target_aspect, predictor_dim
        self.predictor = Predictor(self.backbone.num_features, predictor_dim, predictor_depth, predictor_num_heads)
        self.target = ema_copy(backbone)

    @property
    def encoder(self) -> nn.Module:
        """The target encoder, which the paper evaluates (Appendix A)."""
        return self.target

    def block_size(self, grid: tuple[int, int], device: torch.device) -> tuple[int, float]:
        """Height and unrounded width of the blocks of a whole grid, one draw for a batch, as in the official code."""
        size, aspect = broadcast(torch.rand(2, device=device)).tolist()
        area = grid[0] * grid[1] * (self.target_scale[0] + size * (self.target_scale[1] - self.target_scale[0]))
        ratio = self.target_aspect[0] + aspect * (self.target_aspect[1] - self.target_aspect[0])
        height = min(max(round(math.sqrt(area * ratio)), 1), grid[0])
        width = area if grid[0] == 1 else math.sqrt(area / ratio)  # in one row, a text, blocks are spans
        return height, width

    def divide(self, view: Tensor) -> Division:
        """Draws the target blocks, then the context among the tokens outside them as far as these suffice."""
        places, known = grid(self.backbone, view), eligible(self.backbone, view)
        corners = rand_rows(len(view), self.num_targets, 2, device=view.device)
        size = self.block_size(places, view.device)
        blocks, inside = target_blocks(corners, places, used_columns(known, places), *size)
        targets = blocks.flatten(1)
        # What is withheld from the context encoder is targets first, then others: the context is what remains.
        scores = torch.zeros_like(known).scatter(1, targets, True) + rand_rows(*known.shape, device=view.device)
        withheld = as_mask(choose_tokens(scores, known, 1 - self.context_ratio), known.shape[1])
        context = unmasked(withheld, known, 1 - self.context_ratio)
        counted = withheld.gather(1, targets).view_as(blocks) & inside
        return Division(context, blocks, inside, counted)

    def predict(self, view: Tensor, division: Division) -> Tensor:
        """(B, T, K, D) float32, the vectors predicted at the blocks of a division from its context."""
        context, blocks, inside, _ = division
        positions = sincos(grid(self.backbone, view), self.predictor_dim, view.device)
        x, here = encode(self.backbone, view, keep=context).tokens, positions[context]
        # Each block is predicted by itself: B * T rows, in the order of the examples.
        seen = eligible(self.backbone, view).gather(1, context)
        x, here, seen = (v.repeat_interleave(self.num_targets, dim=0) for v in (x, here, seen))
        # An image has no padding, and attention without a mask is faster.
        valid = None if view.ndim == 4 else torch.cat([seen, inside.flatten(0, 1)], dim=1)
        return self.predictor(x, here, positions[blocks.flatten(0, 1)], valid).float().view(*blocks.shape, -1)

    def view_loss(self, view: Tensor) -> Tensor:
        division = self.divide(view)
        with torch.no_grad():
            targets = take(encode(self.target, view).tokens.float(), division.blocks.flatten(1))
            targets = F.layer_norm(targets, targets.shape[-1:]).view(*division.blocks.shape, -1)
        errors = F.smooth_l1_loss(self.predict(view, division), targets, reduction="none").mean(dim=-1)
        return mean_over(errors, division.counted)

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Smooth L1 as in the official code (Section 3 has squares), mean over target tokens, then global views."""
        return {"loss": torch.stack([self.view_loss(view) for view in global_views(batch.views)]).mean()}

    def after_step(self, progress: float) -> None:
        """The decay grows linearly to 1 over the run (Appendix A)."""
        ema_update(self.target, self.backbone, self.ema_decay + (1 - self.ema_decay) * progress)
