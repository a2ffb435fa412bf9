"""Heads: the small networks that methods put on top of a backbone."""

from itertools import pairwise

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from ssl_zoo.nn.masks import mask_token


def mlp(*dims: int, hidden_norm: bool = True, last_norm: bool = False) -> nn.Sequential:
    """Projector or predictor: Linear-BatchNorm-ReLU for every layer except the last, which is a plain Linear.

    A Linear followed by BatchNorm has no bias, because the normalisation would cancel it.

    Args:
        dims: widths from input to output, at least two.
        hidden_norm: whether the hidden layers have BatchNorm.
        last_norm: whether BatchNorm follows the last layer.
    """
    layers: list[nn.Module] = []
    for width, out in pairwise(dims[:-1]):
        norm = [nn.BatchNorm1d(out)] if hidden_norm else []
        layers += [nn.Linear(width, out, bias=not hidden_norm), *norm, nn.ReLU(inplace=True)]
    layers.append(nn.Linear(dims[-2], dims[-1], bias=not last_norm))
    if last_norm:
        layers.append(nn.BatchNorm1d(dims[-1]))
    return nn.Sequential(*layers)


class Prototypes(nn.Module):
    """Cosine similarity with K learned vectors: a linear layer without bias whose weights have unit norm.

    Computed in float32 even under autocast, because methods divide by temperatures as low as 0.04.
    """

    def __init__(self, dim: int, num_prototypes: int):
        super().__init__()
        self.weight = nn.Parameter(F.normalize(torch.randn(num_prototypes, dim), dim=1))

    def forward(self, z: Tensor, frozen: bool = False) -> Tensor:
        """Cosine similarities with the prototypes.

        Args:
            z: (..., D), need not be normalised.
            frozen: gives the prototypes a gradient of zero (not None, which DistributedDataParallel refuses). Weight
                decay still shortens the vectors, but only their directions matter.

        Returns:
            (..., K) float32 in [-1, 1].
        """
        with torch.autocast(device_type=z.device.type, enabled=False):
            weight = F.normalize(self.weight, dim=1)
            if frozen:
                weight = weight.detach() + 0 * weight
            return F.normalize(z.float(), dim=-1) @ weight.T


class DINOHead(nn.Module):
    """DINO's head: three-layer GELU MLP without BatchNorm, L2 normalisation, prototypes.

    Caron et al., "DINO", 2021, https://arxiv.org/abs/2104.14294, Appendix C; `out_dim` is the width of the bottleneck.
    """

    def __init__(self, in_dim: int, hidden_dim: int, out_dim: int, num_prototypes: int):
        super().__init__()
        widths = (in_dim, hidden_dim, hidden_dim, out_dim)
        linears = [nn.Linear(width, out) for width, out in pairwise(widths)]
        for linear in linears:
            nn.init.trunc_normal_(linear.weight, std=0.02)
            nn.init.zeros_(linear.bias)
        self.mlp = nn.Sequential(linears[0], nn.GELU(), linears[1], nn.GELU(), linears[2])
        self.prototypes = Prototypes(out_dim, num_prototypes)

    def forward(self, x: Tensor, frozen: bool = False) -> Tensor:
        """Maps (..., in_dim) to (..., K) float32 in [-1, 1]; for `frozen` see `Prototypes`."""
        return self.prototypes(self.mlp(x), frozen)


class TokenPredictor(nn.Module):
    """I-JEPA's predictor: a narrow ViT over the context's features and a mask token at each position to predict."""

    def __init__(self, dim: int, hidden_dim: int, depth: int, num_heads: int):
        super().__init__()
        self.project = nn.Linear(dim, hidden_dim)
        self.mask_token = mask_token(hidden_dim)
        blocks = [Block(hidden_dim, num_heads, qkv_bias=True) for _ in range(depth)]
        self.blocks = nn.Sequential(*blocks, nn.LayerNorm(hidden_dim), nn.Linear(hidden_dim, dim))

    def forward(self, x: Tensor, context: Tensor, targets: Tensor, valid: Tensor | None) -> Tensor:
        """Predicts (B, K, D) features from those of the context.

        Args:
            x: (B, M, D) features of the context.
            context: (B, M, hidden_dim) position embeddings of the context.
            targets: (B, K, hidden_dim) position embeddings of the targets.
            valid: (B, M + K) bool, the context and target tokens to attend to, at least one; None for all.
        """
        x = torch.cat([self.project(x) + context, self.mask_token + targets], dim=1)
        *blocks, norm, last = self.blocks
        for block in blocks:
            x = block(x, attn_mask=None if valid is None else valid[:, None, None, :])
        return last(norm(x[:, context.shape[1] :]))
