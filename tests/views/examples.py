"""Pictures, draws, and what torchvision makes of them for the same parameters."""

from collections.abc import Callable
from typing import Any

import torch
import torchvision.transforms.functional as TF
from torch import Tensor
from torchvision.transforms import InterpolationMode

from ssl_zoo.views.colour import ColorJitter, Grayscale, Normalize, Solarize
from ssl_zoo.views.geometry import CenterCrop, GaussianBlur, HorizontalFlip, RandomAffine, RandomResizedCrop
from ssl_zoo.views.keyed_random import KeyedRandom
from ssl_zoo.views.op import Op, Params

MEAN, STD = [0.49, 0.48, 0.45], [0.25, 0.24, 0.26]
JITTER = (TF.adjust_brightness, TF.adjust_contrast, TF.adjust_saturation, TF.adjust_hue)


def pictures(b: int = 24, c: int = 3, h: int = 32, w: int = 32) -> Tensor:
    """(b, c, h, w) uint8, with black, white, grey and saturated pixels among them."""
    x = torch.randint(0, 256, (b, c, h, w), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    x[..., :4, :4], x[..., 4:8, :4], x[:, :1, 8:12, :4] = 0, 255, 255
    x[..., 12:16, :4] = x[:, :1, 12:16, :4]
    return x


def draws(n: int) -> KeyedRandom:
    """The draws of examples 0..n-1."""
    return KeyedRandom(0, 0, torch.arange(n), 0)


def _jitter(x: Tensor, order: list[int], amounts: list[float]) -> Tensor:
    for part in order:
        x = JITTER[part](x, amounts[part])
    return x


def reference(op: Any, x: Tensor, params: Params) -> Tensor:
    """torchvision's result, one example at a time, for the same parameters."""
    chosen: Callable[[Tensor, list[Any]], Tensor] = {
        RandomResizedCrop: lambda x, p: TF.resized_crop(
            x, *p, [op.size] * 2, InterpolationMode(op.mode), antialias=True
        ),
        CenterCrop: lambda x, p: TF.center_crop(TF.resize(x, op.shorter, InterpolationMode(op.mode)), [op.size]),
        HorizontalFlip: lambda x, p: TF.hflip(x),
        RandomAffine: lambda x, p: TF.affine(
            x, p[0], [p[1], p[2]], p[3], [p[4], 0.0], InterpolationMode.BILINEAR, fill=[op.fill]
        ),
        GaussianBlur: lambda x, p: TF.gaussian_blur(x, [op.kernel] * 2, [p[0]] * 2),
        ColorJitter: lambda x, p: _jitter(x, *p),
        Grayscale: lambda x, p: TF.rgb_to_grayscale(x, len(x)),
        Solarize: lambda x, p: TF.solarize(x, op.threshold),
        Normalize: lambda x, p: TF.normalize(x, op.mean, op.std),
    }[type(op)]
    each = zip(x, *(param.tolist() for param in params), strict=True)
    y = torch.stack([chosen(x, list(params)) for x, *params in each])
    return y.clamp(0, 1) if isinstance(op, RandomResizedCrop | CenterCrop) else y


def error(op: Op, x: Tensor, params: Params) -> float:
    """The largest difference from torchvision."""
    return float((op.apply(x, params) - reference(op, x, params)).abs().max())


def simclr() -> list[Op]:
    """A whole pipeline for 32 pixels, blur included."""
    crop = RandomResizedCrop(32, [0.08, 1], interpolation="bicubic")
    jitter = ColorJitter(0.8, 0.8, 0.8, 0.2, p=0.8)
    return [crop, HorizontalFlip(0.5), jitter, Grayscale(0.2), GaussianBlur(3, [0.1, 2], 0.5), Normalize(MEAN, STD)]
