"""I-JEPA: from a part of an image, predict the vectors that a slow copy of the network gives to other parts of it.

Assran, Duval, Misra, Bojanowski, Vincent, Rabbat, LeCun, Ballas, "Self-Supervised Learning from Images with a
Joint-Embedding Predictive Architecture", CVPR 2023, https://arxiv.org/abs/2301.08243, Section 3. Official code:
github.com/facebookresearch/ijepa. Letters: B images, N tokens, M of them context, T target blocks of K tokens, D width.
"""

import math

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from ssl_zoo.functional import (
    all_reduce_mean,
    broadcast,
    ema_copy,
    ema_update,
    fraction,
    global_views,
    positive,
    rand_rows,
)
from ssl_zoo.masks import num_hidden
from ssl_zoo.method import Batch, Method
from ssl_zoo.tokens import eligible, encode, grid, require_tokens, sincos, take


def target_blocks(corners: Tensor, grid: tuple[int, int], height: int, width: int) -> Tensor:
    """(B, T, 2) uniform draws of top and left -> (B, T, height * width) int64, the tokens of each block by rows."""
    top = (corners[..., 0] * (grid[0] - height + 1)).long()
    left = (corners[..., 1] * (grid[1] - width + 1)).long()
    inside = torch.arange(height, device=corners.device)[:, None] * grid[1]
    inside = inside + torch.arange(width, device=corners.device)
    return (top * grid[1] + left).unsqueeze(-1) + inside.flatten()


class Predictor(nn.Module):
    """A narrow ViT that sees the context's vectors, and one learned vector at each place to be predicted."""

    def __init__(self, dim: int, hidden_dim: int, depth: int, num_heads: int):
        super().__init__()
        self.project = nn.Linear(dim, hidden_dim)
        self.mask_token = nn.Parameter(nn.init.trunc_normal_(torch.empty(hidden_dim), std=0.02))
        blocks = [Block(hidden_dim, num_heads, qkv_bias=True) for _ in range(depth)]
        self.blocks = nn.Sequential(*blocks, nn.LayerNorm(hidden_dim), nn.Linear(hidden_dim, dim))

    def forward(self, x: Tensor, here: Tensor, there: Tensor) -> Tensor:
        """x (B, M, D), the context; here (B, M, hidden_dim) and there (B, K, hidden_dim), the positions of context and
        targets -> (B, K, D)."""
        x = torch.cat([self.project(x) + here, self.mask_token + there], dim=1)
        return self.blocks(x)[:, here.shape[1] :]


class IJEPA(Method):
    """Context encoder, predictor, and an EMA of the former as target encoder, which sees the whole image.

    Differs from the official code, so that shapes are the same on all processes: there the context is a block of 85 to
    100 % of the image less the targets, cut to the batch's smallest in reading order; here it is a constant share of
    the tokens, drawn among those outside all targets. If they do not suffice, as on very small grids, some target
    tokens become context, and are then no targets. Positions and class token are the backbone's own, where there they
    are fixed sines and there is none. The linear layers of the predictor start as torch's do; there from a truncated
    normal distribution of 0.02, with zero biases, the last layers of block i divided by sqrt(2 i).
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

    def block_size(self, grid: tuple[int, int], device: torch.device) -> tuple[int, int]:
        """Height and width of the target blocks, one draw for all examples of a batch, as in the official code."""
        size, aspect = broadcast(torch.rand(2, device=device)).tolist()
        area = grid[0] * grid[1] * (self.target_scale[0] + size * (self.target_scale[1] - self.target_scale[0]))
        ratio = self.target_aspect[0] + aspect * (self.target_aspect[1] - self.target_aspect[0])
        height = min(max(round(math.sqrt(area * ratio)), 1), grid[0])
        width = area if grid[0] == 1 else math.sqrt(area / ratio)  # in one row, a text, blocks are spans
        return height, min(max(round(width), 1), grid[1])

    def divide(self, view: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The context (B, M) and the target blocks (B, T, K), int64 tokens; and which of the latter count, bool."""
        places, known = grid(self.backbone, view), eligible(self.backbone, view)
        corners = rand_rows(len(view), self.num_targets, 2, device=view.device)
        blocks = target_blocks(corners, places, *self.block_size(places, view.device))
        targets = blocks.flatten(1)
        free = torch.ones_like(known).scatter(1, targets, False)
        scores = known * (1 + free.int()) + rand_rows(*known.shape, device=view.device)  # padding comes last
        context = scores.topk(num_hidden(self.context_ratio, known.shape[1]), dim=1).indices
        return context, blocks, known.scatter(1, context, False).gather(1, targets).view_as(blocks)

    def predict(self, view: Tensor, context: Tensor, blocks: Tensor) -> Tensor:
        """(B, T, K, D) float32, the vectors predicted at `blocks` from the tokens `context` of the view."""
        positions = sincos(grid(self.backbone, view), self.predictor_dim, view.device)
        x, here = encode(self.backbone, view, keep=context).tokens, positions[context]
        # Each block is predicted by itself: B * T rows, in the order of the examples.
        x, here = (v.repeat_interleave(self.num_targets, dim=0) for v in (x, here))
        return self.predictor(x, here, positions[blocks.flatten(0, 1)]).float().view(*blocks.shape, -1)

    def view_loss(self, view: Tensor) -> Tensor:
        context, blocks, counts = self.divide(view)
        with torch.no_grad():
            targets = take(encode(self.target, view).tokens.float(), blocks.flatten(1))
            targets = F.layer_norm(targets, targets.shape[-1:]).view(*blocks.shape, -1)
        errors = F.smooth_l1_loss(self.predict(view, context, blocks), targets, reduction="none").mean(dim=-1)
        return (errors * counts).sum() / all_reduce_mean(counts.sum().float())

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Smooth L1 as in the official code (Section 3 has squares), mean over target tokens, then global views."""
        return {"loss": torch.stack([self.view_loss(view) for view in global_views(batch.views)]).mean()}

    def after_step(self, progress: float) -> None:
        """The decay grows linearly to 1 over the run (Appendix A)."""
        ema_update(self.target, self.backbone, self.ema_decay + (1 - self.ema_decay) * progress)
