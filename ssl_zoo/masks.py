"""Which tokens a method hides: equally many in each row, so that shapes are static and processes stay balanced.

A mask maker is called with `eligible` (B, N) bool and the grid (rows, columns) of the N tokens; it gives (B, N) bool,
True at hidden tokens. Draws are made for the global batch (`rand_rows`), so masks do not depend on the number of
processes. A text is a grid of one row, where blocks are spans.
"""

import math

import torch
from torch import Tensor

from ssl_zoo.functional import fraction, rand_rows


def num_hidden(mask_ratio: float, num_tokens: int) -> int:
    """At least one token is hidden and one is seen."""
    return min(max(round(mask_ratio * num_tokens), 1), num_tokens - 1)


class RandomMask:
    """Hides round(mask_ratio * N) tokens of each row, uniformly (BERT, MAE)."""

    def __init__(self, mask_ratio: float):
        fraction(mask_ratio=mask_ratio)
        self.mask_ratio = mask_ratio

    def __call__(self, eligible: Tensor, grid: tuple[int, int]) -> Tensor:
        scores = rand_rows(*eligible.shape, device=eligible.device)
        return largest(scores, eligible, num_hidden(self.mask_ratio, eligible.shape[1]))


class BlockMask:
    """Hides round(mask_ratio * N) tokens of each row in rectangles (BEiT, Algorithm 1; iBOT; data2vec).

    Differs from BEiT's loop, which draws one block after another until enough is covered: here all blocks are drawn at
    once, and tokens are hidden in the order of the first block that covers them; a last block that would hide too
    many is cut. On a grid of one row a block is a span of up to `block_ratio` of it.
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
        blocks = rectangles(draws, grid, self.block_ratio, self.min_aspect)  # (B, blocks, N)
        order = torch.arange(self.num_blocks, 0, -1, device=eligible.device).view(1, -1, 1)
        first = (blocks * order).amax(dim=1)  # larger for tokens covered earlier, 0 for those never covered
        noise = rand_rows(b, n, device=eligible.device)
        return largest(first + noise, eligible, num_hidden(self.mask_ratio, n))


def rectangles(draws: Tensor, grid: tuple[int, int], block_ratio: float, min_aspect: float) -> Tensor:
    """(B, K, 4) uniform draws (size, aspect, top, left) -> (B, K, N) bool, K blocks a row."""
    rows, columns = grid
    largest_area = max(block_ratio * rows * columns, 1)
    smallest_area = min(max(largest_area / 4, 1), largest_area)
    size, aspect, top, left = draws.unbind(-1)
    area = smallest_area + size * (largest_area - smallest_area)
    ratio = torch.exp((2 * aspect - 1) * -math.log(min_aspect))
    height = (area * ratio).sqrt().round().clamp(1, rows)
    width = (area / height if rows == 1 else (area / ratio).sqrt()).round().clamp(1, columns)
    y0, x0 = (top * (rows - height + 1)).floor(), (left * (columns - width + 1)).floor()
    y = torch.arange(rows, device=draws.device).view(1, 1, -1, 1)
    x = torch.arange(columns, device=draws.device).view(1, 1, 1, -1)
    y0, x0, height, width = (v[..., None, None] for v in (y0, x0, height, width))
    inside = (y >= y0) & (y < y0 + height) & (x >= x0) & (x < x0 + width)
    return inside.flatten(2)


def largest(scores: Tensor, eligible: Tensor, count: int) -> Tensor:
    """(B, N) bool: the `count` eligible tokens of each row with the largest scores (at least 0)."""
    index = scores.masked_fill(~eligible, -1).topk(count, dim=1).indices
    return torch.zeros_like(eligible).scatter(1, index, True) & eligible
