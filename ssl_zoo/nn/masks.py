"""Random masks over tokens: a fixed share of each example's own tokens, independent of padding.

A mask maker is called with `eligible` (B, N) bool and the grid (rows, columns) of the N tokens; it returns (B, N) bool,
True at masked tokens. Random numbers are generated for the global batch (`rand_rows`), so masks do not depend on the
number of processes. A text is a grid of one row, in which blocks are spans; its padding is at the end.

Letters: B examples, N tokens including padding, n eligible tokens of an example, k largest number of masked tokens.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ssl_zoo.checks import fraction
from ssl_zoo.distributed import rand_rows


def num_masked(mask_ratio: float, num_tokens: int) -> int:
    """Number of tokens to mask of n = `num_tokens`: round(mask_ratio * n), at least 1, at most n - 1; 0 if n < 2."""
    return max(min(max(round(mask_ratio * num_tokens), 1), num_tokens - 1), 0)


def mask_counts(mask_ratio: float, eligible: Tensor) -> Tensor:
    """Number of tokens to mask in each example: `num_masked` of its n eligible tokens.

    Both this number and the number of tokens that remain are non-decreasing in n, so `num_masked(mask_ratio, N)` is the
    maximum over all examples.

    Args:
        mask_ratio: share in (0, 1).
        eligible: (B, N) bool, the tokens that may be masked; padding is not eligible.

    Returns:
        (B,) int64.
    """
    n = eligible.sum(dim=1)
    # float64, to round as Python does in `num_masked`: 0.3 * 95 is below 28.5 in float64 and equals 28.5 in float32.
    return torch.minimum((mask_ratio * n.double()).round().long().clamp(min=1), n - 1).clamp(min=0)


class ChosenTokens(NamedTuple):
    """Tokens chosen in each example.

    Attributes:
        columns: (B, k) int64, distinct within an example, chosen tokens first.
        valid: (B, k) bool, False where an example has fewer than k chosen tokens.
    """

    columns: Tensor
    valid: Tensor


def choose_tokens(scores: Tensor, eligible: Tensor, mask_ratio: float) -> ChosenTokens:
    """The `counts(mask_ratio, eligible)` eligible tokens of each example with the largest scores.

    Args:
        scores: (B, N) float, at least 0.
        eligible: (B, N) bool.
        mask_ratio: share in (0, 1).
    """
    k = num_masked(mask_ratio, eligible.shape[1])
    columns = scores.masked_fill(~eligible, -1).topk(k, dim=1).indices
    return ChosenTokens(columns, torch.arange(k, device=columns.device) < mask_counts(mask_ratio, eligible)[:, None])


def as_mask(chosen: ChosenTokens, num_tokens: int) -> Tensor:
    """(B, N) bool, True at the chosen tokens."""
    mask = torch.zeros(len(chosen.columns), num_tokens, dtype=torch.bool, device=chosen.columns.device)
    return mask.scatter(1, chosen.columns, chosen.valid)


def unmasked(mask: Tensor, eligible: Tensor, mask_ratio: float) -> Tensor:
    """Indices of the tokens that a mask from `choose_tokens` leaves, for encoders that see only those.

    Args:
        mask: (B, N) bool, True at `mask_counts(mask_ratio, eligible)` tokens of each example.
        eligible: (B, N) bool.
        mask_ratio: the share that was masked.

    Returns:
        (B, N - k) int64: the eligible tokens that are not masked, in their original order, then padding.
    """
    rank = torch.where(eligible, 2 * mask.int(), 1)  # 0 kept, 1 padding, 2 masked
    return rank.argsort(dim=1, stable=True)[:, : mask.shape[1] - num_masked(mask_ratio, mask.shape[1])]


def used_columns(eligible: Tensor, grid: tuple[int, int]) -> Tensor:
    """(B,) int64, the number of grid columns that hold eligible tokens; padding columns of a text come last."""
    return eligible.unflatten(1, grid).any(dim=1).sum(dim=1)


class RandomMask:
    """Masks round(mask_ratio * n) of each example's n tokens, uniformly at random (BERT, MAE)."""

    def __init__(self, mask_ratio: float):
        fraction(mask_ratio=mask_ratio)
        self.mask_ratio = mask_ratio

    def __call__(self, eligible: Tensor, grid: tuple[int, int]) -> Tensor:
        """(B, N) bool, True at masked tokens."""
        scores = rand_rows(*eligible.shape, device=eligible.device)
        return as_mask(choose_tokens(scores, eligible, self.mask_ratio), eligible.shape[1])


class BlockMask:
    """Masks round(mask_ratio * n) of each example's n tokens in rectangles (BEiT, Algorithm 1; iBOT; data2vec).

    Differs from BEiT's loop, which adds one block after another until enough tokens are covered: here all blocks are
    sampled at once, and tokens are masked in the order of the first block that covers them; the last block is cut if it
    would mask too many. On a grid of one row, a block is a span of up to `block_ratio` of the example's own tokens.
    """

    def __init__(self, mask_ratio: float, block_ratio: float = 0.2, min_aspect: float = 0.3, num_blocks: int = 32):
        """Checks and stores the settings.

        Args:
            mask_ratio: share of the tokens to mask.
            block_ratio: maximum share of the tokens in one block; the minimum is a quarter of it, at least one token.
            min_aspect: height / width of a block is log-uniform in [min_aspect, 1 / min_aspect].
            num_blocks: number of blocks sampled per example.
        """
        fraction(mask_ratio=mask_ratio, block_ratio=block_ratio, min_aspect=min_aspect)
        self.mask_ratio = mask_ratio
        self.block_ratio = block_ratio
        self.min_aspect = min_aspect
        self.num_blocks = num_blocks

    def __call__(self, eligible: Tensor, grid: tuple[int, int]) -> Tensor:
        """(B, N) bool, True at masked tokens."""
        b, n = eligible.shape
        uniform = rand_rows(b, self.num_blocks, 4, device=eligible.device)
        blocks = rectangles(uniform, grid, used_columns(eligible, grid), self.block_ratio, self.min_aspect)
        order = torch.arange(self.num_blocks, 0, -1, device=eligible.device).view(1, -1, 1)
        first = (blocks * order).amax(dim=1)  # (B, N), larger for tokens covered earlier, 0 for those never covered
        noise = rand_rows(b, n, device=eligible.device)
        return as_mask(choose_tokens(first + noise, eligible, self.mask_ratio), n)


def rectangles(
    uniform: Tensor, grid: tuple[int, int], columns: Tensor, block_ratio: float, min_aspect: float
) -> Tensor:
    """Rectangular blocks inside the first `columns` columns of the grid.

    Args:
        uniform: (B, K, 4) random in [0, 1): determines size, aspect, top and left of K blocks per example.
        grid: rows and columns of the N tokens.
        columns: (B,) int64, the number of grid columns that each example uses.
        block_ratio: maximum share of the used tokens in one block.
        min_aspect: minimum height / width.

    Returns:
        (B, K, N) bool, True inside a block.
    """
    rows, used = grid[0], columns.unsqueeze(1).float()  # (B, 1)
    largest_area = (block_ratio * rows * used).clamp(min=1)
    smallest_area = (largest_area / 4).clamp(min=1)
    size, aspect, top, left = uniform.unbind(-1)
    area = smallest_area + size * (largest_area - smallest_area)
    ratio = torch.exp((2 * aspect - 1) * -math.log(min_aspect))
    height = (area * ratio).sqrt().round().clamp(1, rows)
    width = (area / height if rows == 1 else (area / ratio).sqrt()).round().clamp(min=1).minimum(used)
    y0, x0 = (top * (rows - height + 1)).floor(), (left * (used - width + 1)).floor()
    y = torch.arange(rows, device=uniform.device).view(1, 1, -1, 1)
    x = torch.arange(grid[1], device=uniform.device).view(1, 1, 1, -1)
    y0, x0, height, width = (v[..., None, None] for v in (y0, x0, height, width))
    inside = (y >= y0) & (y < y0 + height) & (x >= x0) & (x < x0 + width)
    return inside.flatten(2)


def target_blocks(
    corners: Tensor, grid: tuple[int, int], columns: Tensor, height: int, width: float
) -> tuple[Tensor, Tensor]:
    """Tokens of I-JEPA's target blocks, inside the grid columns that each example uses.

    Args:
        corners: (B, T, 2) random in [0, 1): determines top and left of T blocks per example.
        grid: rows and columns of the N tokens.
        columns: (B,) int64, the number of grid columns that each example uses.
        height: height of all blocks.
        width: width of the blocks of an example that uses all columns; in other examples it shrinks in proportion.
            Rounded, at least 1.

    Returns:
        (B, T, K) int64, the tokens of each block in row-major order, and (B, T, K) bool, False past the end of the
        narrower blocks of an example with fewer columns.
    """
    widest = min(max(round(width), 1), grid[1])
    widths = (width * columns.double() / grid[1]).round().long().clamp(1, widest)  # (B,)
    top = (corners[..., 0] * (grid[0] - height + 1)).long()
    left = (corners[..., 1] * (columns - widths + 1).clamp(min=1)[:, None]).long()
    x = torch.arange(widest, device=corners.device)
    inside = (x < widths[:, None]).unsqueeze(1).expand(-1, height, -1).flatten(1)  # (B, height * widest)
    x = torch.minimum(x, widths[:, None] - 1)  # past its end, a block repeats its last column
    y = torch.arange(height, device=corners.device) * grid[1]
    offsets = (y[:, None] + x.unsqueeze(1)).flatten(1)
    blocks = (top * grid[1] + left).unsqueeze(-1) + offsets.unsqueeze(1)
    return blocks, inside.unsqueeze(1).expand_as(blocks)


def mask_token(dim: int) -> nn.Parameter:
    """(dim,) learned embedding of masked tokens, truncated normal with standard deviation 0.02.

    It must not start at zero: without an added position embedding, as with rotary positions, LayerNorm would keep it at
    zero and multiply its gradient by 1 / sqrt(eps), so that the first gradients exceed 1e16.
    """
    return nn.Parameter(nn.init.trunc_normal_(torch.empty(dim), std=0.02))
