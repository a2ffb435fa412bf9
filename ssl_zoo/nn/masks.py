"""Which tokens a method masks: a share of each row's own tokens, whatever the padding beside them.

A mask maker is called with `eligible` (B, N) bool and the grid (rows, columns) of the N tokens; it returns (B, N) bool,
True at masked tokens. Random numbers are drawn for the global batch (`rand_rows`), so masks do not depend on the number
of processes. A text is a grid of one row, where blocks are spans; its padding stands at the end.

Letters: B rows of a batch, N columns, n eligible tokens of a row, k columns that suffice for the masked tokens of all.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ssl_zoo.checks import fraction
from ssl_zoo.distributed import rand_rows


def num_hidden(mask_ratio: float, num_tokens: int) -> int:
    """round(mask_ratio * n), at least 1 and at most n - 1; 0 where n < 2. `counts` of a row of n tokens."""
    return max(min(max(round(mask_ratio * num_tokens), 1), num_tokens - 1), 0)


def mask_counts(mask_ratio: float, eligible: Tensor) -> Tensor:
    """How many of each row's own tokens to mask: `num_hidden` of n, for the n eligible tokens of the row.

    Neither this number nor n less it falls as n grows, so `num_hidden(mask_ratio, N)` is the largest of any row.

    Args:
        mask_ratio: share in (0, 1).
        eligible: (B, N) bool, the tokens that may be masked; padding is not among them.

    Returns:
        (B,) int64.
    """
    n = eligible.sum(dim=1)
    # In float64, as Python rounds in `num_hidden`: 0.3 * 95 is below 28.5 there, and 28.5 in float32.
    return torch.minimum((mask_ratio * n.double()).round().long().clamp(min=1), n - 1).clamp(min=0)


class Chosen(NamedTuple):
    """Tokens chosen in each row, by column.

    columns: (B, k) int64, distinct in each row, chosen tokens first; valid: (B, k) bool, False where a row has fewer.
    """

    columns: Tensor
    valid: Tensor


def choose_tokens(scores: Tensor, eligible: Tensor, mask_ratio: float) -> Chosen:
    """The `counts(mask_ratio, eligible)` eligible tokens of each row with the largest scores.

    Args:
        scores: (B, N) float, at least 0.
        eligible: (B, N) bool.
        mask_ratio: share in (0, 1).
    """
    k = num_hidden(mask_ratio, eligible.shape[1])
    columns = scores.masked_fill(~eligible, -1).topk(k, dim=1).indices
    return Chosen(columns, torch.arange(k, device=columns.device) < mask_counts(mask_ratio, eligible)[:, None])


def as_mask(chosen: Chosen, num_tokens: int) -> Tensor:
    """(B, N) bool, True at the chosen tokens."""
    mask = torch.zeros(len(chosen.columns), num_tokens, dtype=torch.bool, device=chosen.columns.device)
    return mask.scatter(1, chosen.columns, chosen.valid)


def unmasked(mask: Tensor, eligible: Tensor, mask_ratio: float) -> Tensor:
    """Columns of the tokens that a mask of `choose` leaves, for encoders that see no others.

    Args:
        mask: (B, N) bool, `counts(mask_ratio, eligible)` tokens of each row.
        eligible: (B, N) bool.
        mask_ratio: the share that was masked.

    Returns:
        (B, N - k) int64: the eligible tokens that are not masked in the order of the row, then padding.
    """
    rank = torch.where(eligible, 2 * mask.int(), 1)  # 0 kept, 1 padding, 2 masked
    return rank.argsort(dim=1, stable=True)[:, : mask.shape[1] - num_hidden(mask_ratio, mask.shape[1])]


def used_columns(eligible: Tensor, grid: tuple[int, int]) -> Tensor:
    """(B,) int64: columns of the grid that hold eligible tokens; the others, the padding of a text, come last."""
    return eligible.unflatten(1, grid).any(dim=1).sum(dim=1)


class RandomMask:
    """Masks round(mask_ratio * n) of each row's n tokens, uniformly (BERT, MAE)."""

    def __init__(self, mask_ratio: float):
        fraction(mask_ratio=mask_ratio)
        self.mask_ratio = mask_ratio

    def __call__(self, eligible: Tensor, grid: tuple[int, int]) -> Tensor:
        scores = rand_rows(*eligible.shape, device=eligible.device)
        return as_mask(choose_tokens(scores, eligible, self.mask_ratio), eligible.shape[1])


class BlockMask:
    """Masks round(mask_ratio * n) of each row's n tokens in rectangles (BEiT, Algorithm 1; iBOT; data2vec).

    Differs from BEiT's loop, which draws one block after another until enough is covered: here all blocks are drawn at
    once, and tokens are masked in the order of the first block that covers them; a last block that would mask too
    many is cut. On a grid of one row a block is a span of up to `block_ratio` of the row's own tokens.
    """

    def __init__(self, mask_ratio: float, block_ratio: float = 0.2, min_aspect: float = 0.3, num_blocks: int = 32):
        """block_ratio: largest share of the tokens in one block; the smallest is a quarter of it, at least one token;
        min_aspect: height / width of a block is log-uniform in [min_aspect, 1 / min_aspect]."""
        fraction(mask_ratio=mask_ratio, block_ratio=block_ratio, min_aspect=min_aspect)
        self.mask_ratio, self.block_ratio, self.min_aspect = mask_ratio, block_ratio, min_aspect
        self.num_blocks = num_blocks

    def __call__(self, eligible: Tensor, grid: tuple[int, int]) -> Tensor:
        b, n = eligible.shape
        draws = rand_rows(b, self.num_blocks, 4, device=eligible.device)
        blocks = rectangles(draws, grid, used_columns(eligible, grid), self.block_ratio, self.min_aspect)
        order = torch.arange(self.num_blocks, 0, -1, device=eligible.device).view(1, -1, 1)
        first = (blocks * order).amax(dim=1)  # (B, N), larger for tokens covered earlier, 0 for those never covered
        noise = rand_rows(b, n, device=eligible.device)
        return as_mask(choose_tokens(first + noise, eligible, self.mask_ratio), n)


def rectangles(draws: Tensor, grid: tuple[int, int], columns: Tensor, block_ratio: float, min_aspect: float) -> Tensor:
    """Blocks inside the first `columns` columns of the grid.

    Args:
        draws: (B, K, 4) uniform in [0, 1): size, aspect, top and left of K blocks per row of the batch.
        grid: rows and columns of the N tokens.
        columns: (B,) int64, how many columns of the grid each row of the batch uses.
        block_ratio: largest share of the used tokens in one block.
        min_aspect: smallest height / width.

    Returns:
        (B, K, N) bool.
    """
    rows, used = grid[0], columns.unsqueeze(1).float()  # (B, 1)
    largest_area = (block_ratio * rows * used).clamp(min=1)
    smallest_area = (largest_area / 4).clamp(min=1)
    size, aspect, top, left = draws.unbind(-1)
    area = smallest_area + size * (largest_area - smallest_area)
    ratio = torch.exp((2 * aspect - 1) * -math.log(min_aspect))
    height = (area * ratio).sqrt().round().clamp(1, rows)
    width = (area / height if rows == 1 else (area / ratio).sqrt()).round().clamp(min=1).minimum(used)
    y0, x0 = (top * (rows - height + 1)).floor(), (left * (used - width + 1)).floor()
    y = torch.arange(rows, device=draws.device).view(1, 1, -1, 1)
    x = torch.arange(grid[1], device=draws.device).view(1, 1, 1, -1)
    y0, x0, height, width = (v[..., None, None] for v in (y0, x0, height, width))
    inside = (y >= y0) & (y < y0 + height) & (x >= x0) & (x < x0 + width)
    return inside.flatten(2)


def target_blocks(
    corners: Tensor, grid: tuple[int, int], columns: Tensor, height: int, width: float
) -> tuple[Tensor, Tensor]:
    """Tokens of the target blocks, by rows, inside the columns that each row of the batch uses.

    Args:
        corners: (B, T, 2) uniform in [0, 1): top and left.
        grid: rows and columns of the N tokens.
        columns: (B,) int64, how many columns of the grid each row of the batch uses.
        height: of all blocks.
        width: of the blocks of a row that uses all columns; others have their share of it. Rounded, at least 1.

    Returns:
        (B, T, K) int64 tokens and (B, T, K) bool, False where the block of a row with fewer columns has ended.
    """
    widest = min(max(round(width), 1), grid[1])
    widths = (width * columns.double() / grid[1]).round().long().clamp(1, widest)  # (B,)
    top = (corners[..., 0] * (grid[0] - height + 1)).long()
    left = (corners[..., 1] * (columns - widths + 1).clamp(min=1)[:, None]).long()
    x = torch.arange(widest, device=corners.device)
    inside = (x < widths[:, None]).unsqueeze(1).expand(-1, height, -1).flatten(1)  # (B, height * widest)
    x = torch.minimum(x, widths[:, None] - 1)  # what lies beyond a block repeats its last column
    y = torch.arange(height, device=corners.device) * grid[1]
    offsets = (y[:, None] + x.unsqueeze(1)).flatten(1)
    blocks = (top * grid[1] + left).unsqueeze(-1) + offsets.unsqueeze(1)
    return blocks, inside.unsqueeze(1).expand_as(blocks)


def mask_token(dim: int) -> nn.Parameter:
    """(dim,) truncated normal of deviation 0.02: the learned vector that stands in place of masked tokens.

    Not zeros: where no position is added to them, as with rotary positions, norms leave them zeros and multiply their
    gradient by 1 / sqrt(eps), and the first gradients are 1e16 and more.
    """
    return nn.Parameter(nn.init.trunc_normal_(torch.empty(dim), std=0.02))
