"""What an encoder says of each position of its input: image patches, cells of a feature map, or text tokens."""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ssl_zoo.backbones.text import TextEncoder


class TokenFeatures(NamedTuple):
    """Features per position of the input.

    Attributes:
        features: (B, N, D) float.
        grid: (rows, columns) with rows * columns = N for images; (1, N) for texts.
        valid: (B, N) bool, False at the padding of texts.
    """

    features: Tensor
    grid: tuple[int, int]
    valid: Tensor


def token_features(network: nn.Module, x: Tensor) -> TokenFeatures:
    """Features of the patches of images (B, C, H, W), or of the tokens of texts (B, L), after the last norm.

    A convolutional network gives the cells of its last feature map.

    Raises:
        ValueError: for a network that gives one vector per example only.
    """
    net: Any = network
    if isinstance(net, TextEncoder):
        return TokenFeatures(net.encode(x).tokens, (1, x.shape[1]), net.valid(x))
    if not hasattr(net, "forward_features"):
        raise ValueError(f"{type(net).__name__} gives no features per patch")
    features = net.forward_features(x)
    if features.ndim == 4:  # convolutional: (B, D, h, w), or channels last
        if getattr(net, "output_fmt", "NCHW") != "NHWC":
            features = features.permute(0, 2, 3, 1)
        grid = features.shape[1], features.shape[2]
        features = features.flatten(1, 2)
    else:
        features = features[:, getattr(net, "num_prefix_tokens", 0) :]
        grid = net.patch_embed.dynamic_feat_size(x.shape[-2:])
    return TokenFeatures(features, grid, torch.ones(features.shape[:2], dtype=torch.bool, device=features.device))
