"""Masking for self-distillation of tokens (iBOT, DINOv2): the student sees masked views, the teacher whole ones.

Letters: B batch, V global views, N tokens of a view, k columns that hold the masked tokens of an example, D width.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from ssl_zoo.backbones.tokens import eligible, embed, encode, grid, take
from ssl_zoo.distributed import rand_rows
from ssl_zoo.nn.masks import BlockMask, num_masked


class MaskedTokens(NamedTuple):
    """The masked tokens among the V * N tokens of each example's global views.

    Attributes:
        mask: (B, V * N) bool, True at masked tokens.
        columns: (B, k) int64, indices of the masked tokens.
        valid: (B, k) bool, False where a short text has fewer than k masked tokens.
    """

    mask: Tensor
    columns: Tensor
    valid: Tensor


def mask_one_view(x: Tensor, backbone: nn.Module, mask: BlockMask) -> MaskedTokens:
    """Masks tokens of one global view of each example, selected uniformly at random.

    Args:
        x: (B, V, ...), the global views.
        backbone: defines the tokens of a view.
        mask: mask maker, called with the selected views.
    """
    example = torch.arange(len(x), device=x.device)
    view = (rand_rows(len(x), device=x.device) * x.shape[1]).long()  # (B,)
    selected = x[example, view]
    pattern = mask(eligible(backbone, selected), grid(backbone, selected))  # (B, N)
    all_views = torch.zeros(*x.shape[:2], pattern.shape[1], dtype=torch.bool, device=x.device)
    all_views[example, view] = pattern
    flat = all_views.flatten(1)
    columns = flat.int().topk(num_masked(mask.mask_ratio, pattern.shape[1]), dim=1).indices
    return MaskedTokens(flat, columns, flat.gather(1, columns))


def encode_views(
    backbone: nn.Module, x: Tensor, masked: MaskedTokens, mask_token: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Encodes the global views x (B, V, ...); the teacher passes no `mask_token` and sees the masked tokens.

    Returns:
        The pooled vectors (B * V, D), and the vectors at the masked tokens (B, k, D).
    """
    rows, embeddings = x.flatten(0, 1), None
    if mask_token is not None:
        embeddings = torch.where(masked.mask.view(len(rows), -1, 1), mask_token, embed(backbone, rows))
    out = encode(backbone, rows, embeddings=embeddings)
    return out.pooled, take(out.tokens.reshape(len(x), -1, out.tokens.shape[-1]), masked.columns)
