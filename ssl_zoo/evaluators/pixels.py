"""Images in the normalised form that encoders take, and as pixels in [0, 1], which augmentations take."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def to_pixels(facts: Mapping[str, Any], view: Tensor) -> Tensor:
    """Maps normalised images (B, C, H, W) to pixels in [0, 1]; `facts` has their mean and std."""
    mean, std = _statistics(facts, view)
    return (view * std + mean).clamp(0, 1)


def from_pixels(facts: Mapping[str, Any], pixels: Tensor) -> Tensor:
    """The inverse of `to_pixels`."""
    mean, std = _statistics(facts, pixels)
    return (pixels - mean) / std


def _statistics(facts: Mapping[str, Any], like: Tensor) -> list[Tensor]:
    return [torch.tensor(facts[key]).to(like).view(-1, 1, 1) for key in ("mean", "std")]
