"""One face for encoders that are made of tokens, patches of an image or pieces of a text, for methods that hide some.

A method embeds a view, may put something else in place of some embeddings, and encodes all tokens or a part of them:

    x = torch.where(mask.unsqueeze(-1), self.mask_token, embed(backbone, view))
    tokens = encode(backbone, view, embeddings=x).tokens

Letters: B examples, N tokens of a view, M tokens kept, D width, C H W image, P patch size.
"""

from functools import singledispatch
from typing import Any

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from ssl_zoo.backbones.text import TextEncoder, Tokens


@singledispatch
def embed(backbone: nn.Module, view: Tensor) -> Tensor:
    """(B, N, D): what each token is before the first block, without its position. Masks may write into it.

    Raises ValueError for a backbone without tokens, such as a ResNet; methods call `require_tokens` at construction.
    """
    raise ValueError(_refusal(backbone))


@singledispatch
def encode(backbone: nn.Module, view: Tensor, embeddings: Tensor | None = None, keep: Tensor | None = None) -> Tokens:
    """Runs the encoder. `embeddings` (B, N, D) stands in for `embed(backbone, view)`; `keep` (B, M) int64 are the only
    tokens the encoder sees, at their own positions. Class tokens take part, and are left out of what comes back."""
    raise ValueError(_refusal(backbone))


@singledispatch
def grid(backbone: nn.Module, view: Tensor) -> tuple[int, int]:
    """How the N tokens lie: (rows, columns) for an image, (1, N) for a text."""
    raise ValueError(_refusal(backbone))


@singledispatch
def eligible(backbone: nn.Module, view: Tensor) -> Tensor:
    """(B, N) bool: tokens with content; False at the padding of a text."""
    raise ValueError(_refusal(backbone))


def _refusal(backbone: nn.Module) -> str:
    return (
        f"backbone: {type(backbone).__name__} has no tokens, which this method hides and predicts. Choose a ViT, "
        "such as backbone=vit_tiny, for images, or backbone=text_small for text"
    )


def require_tokens(backbone: nn.Module) -> None:
    """Raises ValueError unless the functions above work for `backbone`."""
    if not isinstance(backbone, VisionTransformer | TextEncoder):
        raise ValueError(_refusal(backbone))


def patch_convolution(backbone: nn.Module) -> Any:
    """The nn.Conv2d that cuts an image into patches. Raises ValueError for a backbone that is no ViT."""
    if not isinstance(backbone, VisionTransformer):
        raise ValueError(
            f"backbone: this method predicts patches of an image and needs a ViT, such as backbone=vit_tiny, not a "
            f"{type(backbone).__name__}"
        )
    patch_embed: Any = backbone.patch_embed
    return patch_embed.proj


def take(x: Tensor, index: Tensor) -> Tensor:
    """Rows of tokens: x (B, N, D), index (B, M) int64 -> (B, M, D)."""
    return x.gather(1, index.unsqueeze(-1).expand(-1, -1, x.shape[-1]))


def sincos(grid: tuple[int, int], dim: int, device: torch.device) -> Tensor:
    """(N, dim) float32, fixed positions of a grid's tokens, dim a multiple of 4: sines and cosines of the row, then of
    the column."""
    index = torch.arange(grid[0] * grid[1], device=device)
    place = torch.stack([index // grid[1], index % grid[1]], dim=1).float()  # (N, 2)
    rates = 10000 ** (-torch.arange(dim // 4, device=device) / (dim // 4))
    angles = place.unsqueeze(-1) * rates  # (N, 2, dim / 4)
    return torch.cat([angles.sin(), angles.cos()], dim=2).flatten(1)


def patches(images: Tensor, patch_size: tuple[int, int]) -> Tensor:
    """Pixels of each patch: (B, C, H, W) -> (B, N, P * P * C), row by row, channel last (MAE, Section 3)."""
    b, c, h, w = images.shape
    p, q = patch_size
    x = images.reshape(b, c, h // p, p, w // q, q).permute(0, 2, 4, 3, 5, 1)  # (B, H/p, W/q, p, q, C)
    return x.reshape(b, (h // p) * (w // q), p * q * c)


# ------------------------------------------------------------------------------------------------------------ images


@embed.register
def _(backbone: VisionTransformer, view: Tensor) -> Tensor:
    patch_embed: Any = backbone.patch_embed
    return patch_embed(view).flatten(1, -2)  # (B, rows, columns, D) if the model takes any size, else (B, N, D) already


@grid.register
def _(backbone: VisionTransformer, view: Tensor) -> tuple[int, int]:
    patch_embed: Any = backbone.patch_embed
    return patch_embed.dynamic_feat_size((view.shape[-2], view.shape[-1]))


@eligible.register
def _(backbone: VisionTransformer, view: Tensor) -> Tensor:
    rows, columns = grid(backbone, view)
    return torch.ones(len(view), rows * columns, dtype=torch.bool, device=view.device)


@encode.register
def _(
    backbone: VisionTransformer, view: Tensor, embeddings: Tensor | None = None, keep: Tensor | None = None
) -> Tokens:
    x = embed(backbone, view) if embeddings is None else embeddings
    if backbone.dynamic_img_size:
        x = x.unflatten(1, grid(backbone, view))
    x = backbone._pos_embed(x)  # class tokens are put before the patches
    prefix = backbone.num_prefix_tokens
    if keep is not None:
        x = torch.cat([x[:, :prefix], take(x[:, prefix:], keep)], dim=1)
    x = backbone.norm_pre(x)
    layers = []
    for block in backbone.blocks:
        if backbone.grad_checkpointing and torch.is_grad_enabled():
            x = torch.utils.checkpoint.checkpoint(block, x, use_reentrant=False)
        else:
            x = block(x)
        layers.append(x[:, prefix:])
    x = backbone.norm(x)
    return Tokens(backbone.forward_head(x, pre_logits=True), x[:, prefix:], layers)


# -------------------------------------------------------------------------------------------------------------- text


@embed.register
def _(backbone: TextEncoder, view: Tensor) -> Tensor:
    embedding: Any = backbone.embedding  # each kind of encoder has one
    return embedding(view)


@grid.register
def _(backbone: TextEncoder, view: Tensor) -> tuple[int, int]:
    return 1, view.shape[1]


@eligible.register
def _(backbone: TextEncoder, view: Tensor) -> Tensor:
    return backbone.valid(view) & (view != backbone.pad_id)  # `valid` counts a row without text as all text


@encode.register
def _(backbone: TextEncoder, view: Tensor, embeddings: Tensor | None = None, keep: Tensor | None = None) -> Tokens:
    return backbone.encode(view, embeddings, keep)
