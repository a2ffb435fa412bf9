"""Tokens that a student does not see and its teacher does, as iBOT and DINOv2 hide them.

Letters: B batch, V global views, N tokens of a view, k columns that hold the masked tokens of an example, D width.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from ssl_zoo.backbones.tokens import eligible, embed, encode, grid, take
from ssl_zoo.distributed import rand_rows
from ssl_zoo.nn.masks import BlockMask, num_hidden


class Hidden(NamedTuple):
    """Tokens that the student does not see, among the V * N of each example's global views.

    mask: (B, V * N) bool; columns: (B, k) int64; valid: (B, k) bool, False where a shorter text has fewer."""

    mask: Tensor
    columns: Tensor
    valid: Tensor


def hide(x: Tensor, backbone: nn.Module, mask: BlockMask) -> Hidden:
    """Hides tokens of one global view of each example, drawn uniformly. x: (B, V, ...)."""
    each = torch.arange(len(x), device=x.device)
    view = (rand_rows(len(x), device=x.device) * x.shape[1]).long()  # (B,)
    chosen = x[each, view]
    pattern = mask(eligible(backbone, chosen), grid(backbone, chosen))  # (B, N)
    everywhere = torch.zeros(*x.shape[:2], pattern.shape[1], dtype=torch.bool, device=x.device)
    everywhere[each, view] = pattern
    flat = everywhere.flatten(1)
    columns = flat.int().topk(num_hidden(mask.mask_ratio, pattern.shape[1]), dim=1).indices
    return Hidden(flat, columns, flat.gather(1, columns))


def read_tokens(backbone: nn.Module, x: Tensor, hidden: Hidden, mask_token: Tensor | None) -> tuple[Tensor, Tensor]:
    """Pooled vectors (B * V, D) and those of the hidden tokens (B, k, D); without `mask_token` nothing is hidden."""
    rows, embeddings = x.flatten(0, 1), None
    if mask_token is not None:
        embeddings = torch.where(hidden.mask.view(len(rows), -1, 1), mask_token, embed(backbone, rows))
    out = encode(backbone, rows, embeddings=embeddings)
    return out.pooled, take(out.tokens.reshape(len(x), -1, out.tokens.shape[-1]), hidden.columns)
