"""A common interface to encoders of tokens, image patches or text tokens, for methods that mask some of them.

A method embeds a view, may replace some of the embeddings, and encodes all tokens or a subset:

    x = torch.where(mask.unsqueeze(-1), self.mask_token, embed(backbone, view))
    tokens = encode(backbone, view, embeddings=x).tokens

Letters: B examples, N tokens of a view, M tokens kept, D width, C H W image, P patch size.
"""

from functools import singledispatch
from typing import Any

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from ssl_zoo.backbones.text import EncodedTokens, TextEncoder


@singledispatch
def embed(backbone: nn.Module, view: Tensor) -> Tensor:
    """Embeddings (B, N, D) of the tokens of a view, before positions and the first block; may be modified in place.

    Raises:
        ValueError: for a backbone without tokens, such as a ResNet; methods call `require_tokens` at construction.
    """
    raise ValueError(_refusal(backbone))


@singledispatch
def encode(
    backbone: nn.Module, view: Tensor, embeddings: Tensor | None = None, keep: Tensor | None = None
) -> EncodedTokens:
    """Runs the encoder and returns its output per token; class tokens take part, but are not returned.

    Args:
        backbone: an encoder of tokens.
        view: images (B, C, H, W) or token ids (B, L).
        embeddings: (B, N, D), replace `embed(backbone, view)`.
        keep: (B, M) int64, the tokens that the encoder sees, at their original positions; None for all.
    """
    raise ValueError(_refusal(backbone))


@singledispatch
def grid(backbone: nn.Module, view: Tensor) -> tuple[int, int]:
    """Layout of the N tokens: (rows, columns) for an image, (1, N) for a text."""
    raise ValueError(_refusal(backbone))


@singledispatch
def eligible(backbone: nn.Module, view: Tensor) -> Tensor:
    """(B, N) bool, False at the padding of a text, True at all other tokens."""
    raise ValueError(_refusal(backbone))


def _refusal(backbone: nn.Module) -> str:
    return (
        f"backbone: {type(backbone).__name__} has no tokens, which this method masks and predicts. Choose a ViT, "
        "such as backbone=vit_tiny, for images, or backbone=text_small for text"
    )


def require_tokens(backbone: nn.Module) -> None:
    """Raises ValueError unless the functions above work for `backbone`."""
    if not isinstance(backbone, VisionTransformer | TextEncoder):
        raise ValueError(_refusal(backbone))


def patch_convolution(backbone: nn.Module) -> Any:
    """The nn.Conv2d that embeds the patches of an image. Raises ValueError for a backbone that is not a ViT."""
    if not isinstance(backbone, VisionTransformer):
        raise ValueError(
            f"backbone: this method predicts patches of an image and needs a ViT, such as backbone=vit_tiny, not a "
            f"{type(backbone).__name__}"
        )
    patch_embed: Any = backbone.patch_embed
    return patch_embed.proj


def take(x: Tensor, index: Tensor) -> Tensor:
    """Selects tokens: x (B, N, D) at index (B, M) int64 gives (B, M, D)."""
    return x.gather(1, index.unsqueeze(-1).expand(-1, -1, x.shape[-1]))


def sincos(grid: tuple[int, int], dim: int, device: torch.device) -> Tensor:
    """Fixed 2-D sine-cosine position embeddings (N, dim) float32 of the tokens of a grid.

    Each of row and column has dim / 4 sines and dim / 4 cosines; dim must be a multiple of 4.
    """
    index = torch.arange(grid[0] * grid[1], device=device)
    position = torch.stack([index // grid[1], index % grid[1]], dim=1).float()  # (N, 2)
    frequencies = 10000 ** (-torch.arange(dim // 4, device=device) / (dim // 4))
    angles = position.unsqueeze(-1) * frequencies  # (N, 2, dim / 4)
    return torch.cat([angles.sin(), angles.cos()], dim=2).flatten(1)


def patches(images: Tensor, patch_size: tuple[int, int]) -> Tensor:
    """Pixels of each patch: (B, C, H, W) to (B, N, P * P * C) in row-major order, channels last (MAE, Section 3)."""
    b, c, h, w = images.shape
    p, q = patch_size
    x = images.reshape(b, c, h // p, p, w // q, q).permute(0, 2, 4, 3, 5, 1)  # (B, H/p, W/q, p, q, C)
    return x.reshape(b, (h // p) * (w // q), p * q * c)


# ------------------------------------------------------------------------------------------------------------ images


@embed.register
def _(backbone: VisionTransformer, view: Tensor) -> Tensor:
    patch_embed: Any = backbone.patch_embed
    return patch_embed(view).flatten(1, -2)  # from (B, rows, columns, D) if the model accepts any size, else (B, N, D)


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
) -> EncodedTokens:
    x = embed(backbone, view) if embeddings is None else embeddings
    if backbone.dynamic_img_size:
        x = x.unflatten(1, grid(backbone, view))
    x = backbone._pos_embed(x)  # prepends class tokens
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
    return EncodedTokens(backbone.forward_head(x, pre_logits=True), x[:, prefix:], layers)


# -------------------------------------------------------------------------------------------------------------- text


@embed.register
def _(backbone: TextEncoder, view: Tensor) -> Tensor:
    embedding: Any = backbone.embedding  # every text encoder has one
    return embedding(view)


@grid.register
def _(backbone: TextEncoder, view: Tensor) -> tuple[int, int]:
    return 1, view.shape[1]


@eligible.register
def _(backbone: TextEncoder, view: Tensor) -> Tensor:
    return backbone.valid(view) & (view != backbone.pad_id)  # `valid` is True everywhere in a row without text


@encode.register
def _(
    backbone: TextEncoder, view: Tensor, embeddings: Tensor | None = None, keep: Tensor | None = None
) -> EncodedTokens:
    return backbone.encode(view, embeddings, keep)
