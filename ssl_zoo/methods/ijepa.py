"""I-JEPA: from some patches of an image, predict an EMA target encoder's features of other patches.

Assran, Duval, Misra, Bojanowski, Vincent, Rabbat, LeCun, Ballas, "Self-Supervised Learning from Images with a
Joint-Embedding Predictive Architecture", CVPR 2023, https://arxiv.org/abs/2301.08243, Section 3. Official code:
github.com/facebookresearch/ijepa. Letters: B images, N tokens, M of them context, T target blocks of K tokens, D width.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_zoo.backbones.tokens import eligible, encode, grid, require_tokens, sincos, take
from ssl_zoo.checks import fraction, positive
from ssl_zoo.distributed import broadcast, rand_rows
from ssl_zoo.functional import ema_copy, ema_update, global_views, mean_over
from ssl_zoo.method import Batch, Method
from ssl_zoo.nn.heads import TokenPredictor
from ssl_zoo.nn.masks import as_mask, choose_tokens, target_blocks, unmasked, used_columns


class Division(NamedTuple):
    """Context and target tokens of each example.

    Attributes:
        context: (B, M) int64, the tokens that the context encoder sees, then padding.
        blocks: (B, T, K) int64, tokens of the target blocks.
        inside: (B, T, K) bool, False past the end of the blocks of a short text.
        counted: (B, T, K) bool, the targets in the loss, which are not in the context.
    """

    context: Tensor
    blocks: Tensor
    inside: Tensor
    counted: Tensor


class IJEPA(Method):
    """Context encoder, predictor, and an EMA of the context encoder as target encoder, which sees the whole image.

    Differs from the official code: (1) the context is a constant share of the tokens, sampled outside all targets (and
    among them where too few remain), so that shapes are equal on all processes; official: a block of 85 to 100 % of the
    image minus the targets, cut to the smallest in the batch. (2) Positions and class token are the backbone's;
    official: fixed sines, no class token. (3) The predictor's linear layers have torch's initialisation; official:
    truncated normal of 0.02, the last of block i divided by sqrt(2 i).

    Args:
        target_scale: range of the share of tokens in a block.
        target_aspect: range of height / width of a block.
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
        self.context_ratio = context_ratio
        self.num_targets = num_targets
        self.ema_decay = ema_decay
        self.target_scale = target_scale
        self.target_aspect = target_aspect
        self.predictor_dim = predictor_dim
        self.predictor = TokenPredictor(self.backbone.num_features, predictor_dim, predictor_depth, predictor_num_heads)
        self.target = ema_copy(backbone)

    @property
    def encoder(self) -> nn.Module:
        """The target encoder, which the paper evaluates (Appendix A)."""
        return self.target

    def block_size(self, grid: tuple[int, int], device: torch.device) -> tuple[int, float]:
        """Random height and unrounded width of the blocks, one for the whole batch, as in the official code."""
        size, aspect = broadcast(torch.rand(2, device=device)).tolist()
        area = grid[0] * grid[1] * (self.target_scale[0] + size * (self.target_scale[1] - self.target_scale[0]))
        ratio = self.target_aspect[0] + aspect * (self.target_aspect[1] - self.target_aspect[0])
        height = min(max(round(math.sqrt(area * ratio)), 1), grid[0])
        width = area if grid[0] == 1 else math.sqrt(area / ratio)  # in a text, a grid of one row, blocks are spans
        return height, width

    def divide(self, view: Tensor) -> Division:
        """Samples target blocks, then the context, outside of them as far as possible."""
        shape, real = grid(self.backbone, view), eligible(self.backbone, view)
        corners = rand_rows(len(view), self.num_targets, 2, device=view.device)
        size = self.block_size(shape, view.device)
        blocks, inside = target_blocks(corners, shape, used_columns(real, shape), *size)
        targets = blocks.flatten(1)
        # Mask targets first (their scores are at least 1), then other tokens; the rest is the context.
        scores = torch.zeros_like(real).scatter(1, targets, True) + rand_rows(*real.shape, device=view.device)
        masked = as_mask(choose_tokens(scores, real, 1 - self.context_ratio), real.shape[1])
        context = unmasked(masked, real, 1 - self.context_ratio)
        counted = masked.gather(1, targets).view_as(blocks) & inside
        return Division(context, blocks, inside, counted)

    def predict(self, view: Tensor, division: Division) -> Tensor:
        """Features (B, T, K, D) float32 predicted at the target blocks from the context."""
        context, blocks, inside, _ = division
        positions = sincos(grid(self.backbone, view), self.predictor_dim, view.device)
        x, context_positions = encode(self.backbone, view, keep=context).tokens, positions[context]
        # Each block is predicted separately: B * T rows, ordered by example.
        real = eligible(self.backbone, view).gather(1, context)
        x, context_positions, real = (
            v.repeat_interleave(self.num_targets, dim=0) for v in (x, context_positions, real)
        )
        # An image has no padding, and attention without a mask is faster.
        valid = None if view.ndim == 4 else torch.cat([real, inside.flatten(0, 1)], dim=1)
        predictions = self.predictor(x, context_positions, positions[blocks.flatten(0, 1)], valid)
        return predictions.float().view(*blocks.shape, -1)

    def view_loss(self, view: Tensor) -> Tensor:
        """Smooth L1 of one view, mean over its counted targets."""
        division = self.divide(view)
        with torch.no_grad():
            targets = take(encode(self.target, view).tokens.float(), division.blocks.flatten(1))
            targets = F.layer_norm(targets, targets.shape[-1:]).view(*division.blocks.shape, -1)
        errors = F.smooth_l1_loss(self.predict(view, division), targets, reduction="none").mean(dim=-1)
        return mean_over(errors, division.counted)

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Smooth L1 as in the official code (Section 3: squared error), mean over targets, then global views."""
        return {"loss": torch.stack([self.view_loss(view) for view in global_views(batch.views)]).mean()}

    def after_step(self, progress: float) -> None:
        """Updates the target encoder; the decay rises linearly to 1 over the run (Appendix A)."""
        ema_update(self.target, self.backbone, self.ema_decay + (1 - self.ema_decay) * progress)
