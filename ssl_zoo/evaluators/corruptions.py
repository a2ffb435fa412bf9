"""Corruptions of images in five severities, from the definitions of ImageNet-C and CIFAR-10-C.

Hendrycks, Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations", ICLR 2019,
https://arxiv.org/abs/1903.12261, Section 3.1 and Appendix B; the constants are those of the authors' generators, for
images of 224 pixels and of 32. Ten corruptions that need no other file are here. Left out are fog, frost, snow, glass
blur, elastic transform and motion blur, which need textures, other programs or long loops. As there, results are
truncated to 8 bits. Letters: B images, C channels, H W image.
"""

import io
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

SMALL_SIDE = 64
"""Side of images in pixels up to which CIFAR-10-C's constants are used."""

Corruption = Callable[[Tensor, Any, torch.Generator], Tensor]
"""Maps pixels (B, C, H, W) in [0, 1], the constants of a severity and random numbers to pixels, clipped afterwards."""


def gaussian_noise(x: Tensor, deviation: float, random: torch.Generator) -> Tensor:
    """Adds noise."""
    return x + deviation * torch.randn(x.shape, generator=random).to(x)


def shot_noise(x: Tensor, photons: float, random: torch.Generator) -> Tensor:
    """Counts photons: a Poisson variable with the mean x * photons."""
    return torch.poisson(x.cpu() * photons, generator=random).to(x) / photons


def impulse_noise(x: Tensor, share: float, random: torch.Generator) -> Tensor:
    """Sets a share of all values to 0 or 1."""
    u = torch.rand(x.shape, generator=random).to(x)
    x = torch.where(u < share / 2, 0.0, x)
    return torch.where((u >= share / 2) & (u < share), 1.0, x)


def defocus_blur(x: Tensor, constants: tuple[float, float], _: torch.Generator) -> Tensor:
    """Averages over a disk whose edge is smoothed by a Gaussian."""
    kernel = disk(*constants).to(x)
    pad, channels = kernel.shape[0] // 2, x.shape[1]
    weight = kernel.expand(channels, 1, -1, -1)
    mode = "reflect" if pad < min(x.shape[2:]) else "replicate"
    return F.conv2d(F.pad(x, (pad, pad, pad, pad), mode=mode), weight, groups=channels)


def disk(radius: float, smoothing: float) -> Tensor:
    """Weights of a disk (n, n), float64 with the sum 1; the Gaussian has 3 pixels up to a radius of 8, then 5."""
    size, half = math.ceil(radius), 1 if radius <= 8 else 2
    line = torch.arange(-size - half, size + half + 1, dtype=torch.float64)
    inside = (line[:, None] ** 2 + line**2 <= radius**2).double()
    smooth = torch.exp(-(torch.arange(-half, half + 1, dtype=torch.float64) ** 2) / (2 * smoothing**2))
    smooth = smooth / smooth.sum()
    smoothed = F.conv2d((inside / inside.sum())[None, None], (smooth[:, None] * smooth)[None, None], padding=half)
    return smoothed[0, 0]


def zoom_blur(x: Tensor, zooms: Sequence[float], _: torch.Generator) -> Tensor:
    """Averages the image and its central part at several magnifications."""
    height, width = x.shape[2:]
    total = x.clone()
    for zoom in zooms:
        h, w = math.ceil(height / zoom), math.ceil(width / zoom)
        top, left = (height - h) // 2, (width - w) // 2
        part = x[:, :, top : top + h, left : left + w]
        size = (round(h * zoom), round(w * zoom))
        larger = F.interpolate(part, size=size, mode="bilinear", align_corners=True)
        top, left = (size[0] - height) // 2, (size[1] - width) // 2
        total += larger[:, :, top : top + height, left : left + width]
    return total / (len(zooms) + 1)


def brightness(x: Tensor, amount: float, _: torch.Generator) -> Tensor:
    """Adds to the value of HSV, the greatest channel, at equal hue and saturation."""
    value = x.amax(dim=1, keepdim=True)
    brighter = (value + amount).clamp(0, 1)
    return torch.where(value > 0, x * brighter / value.clamp(min=1e-12), brighter)


def contrast(x: Tensor, factor: float, _: torch.Generator) -> Tensor:
    """Moves values towards the mean of their image and channel."""
    mean = x.mean(dim=(2, 3), keepdim=True)
    return (x - mean) * factor + mean


def saturate(x: Tensor, constants: tuple[float, float], _: torch.Generator) -> Tensor:
    """Multiplies and shifts the saturation of HSV; a grey pixel has the hue of red. Grey images stay as they are."""
    if x.shape[1] != 3:
        return x
    value = x.amax(dim=1, keepdim=True)
    chroma = value - x.amin(dim=1, keepdim=True)
    saturation = chroma / value.clamp(min=1e-12)
    changed = (saturation * constants[0] + constants[1]).clamp(0, 1)
    red = torch.tensor([0.0, 1.0, 1.0]).to(x).view(-1, 1, 1)
    lacking = torch.where(chroma > 0, (value - x) / chroma.clamp(min=1e-12), red)  # of the full chroma, in [0, 1]
    return value * (1 - changed * lacking)


def pixelate(x: Tensor, share: float, _: torch.Generator) -> Tensor:
    """Shrinks the image to a share of its side and enlarges it again, with a box filter."""

    def change(image: Image.Image) -> Image.Image:
        width, height = image.size
        small = image.resize((max(1, int(width * share)), max(1, int(height * share))), Image.Resampling.BOX)
        return small.resize((width, height), Image.Resampling.BOX)

    return by_pillow(x, change)


def jpeg(x: Tensor, quality: int, _: torch.Generator) -> Tensor:
    """Compresses the image."""

    def change(image: Image.Image) -> Image.Image:
        file = io.BytesIO()
        image.save(file, "JPEG", quality=quality)
        return Image.open(file).convert(image.mode)

    return by_pillow(x, change)


def by_pillow(x: Tensor, change: Callable[[Image.Image], Image.Image]) -> Tensor:
    """Changes each image, in 8 bits: colour images as a whole, others channel by channel."""
    pixels = to_bytes(x).cpu().numpy()
    if x.shape[1] == 3:
        changed = [np.asarray(change(Image.fromarray(image.transpose(1, 2, 0)))).transpose(2, 0, 1) for image in pixels]
    else:
        changed = [np.stack([np.asarray(change(Image.fromarray(band))) for band in image]) for image in pixels]
    return torch.from_numpy(np.stack(changed)).to(x) / 255


def to_bytes(x: Tensor) -> Tensor:
    """Pixels in [0, 1] as uint8, truncated; what rounding has moved just below a whole number counts as that number."""
    return (x.clamp(0, 1) * 255 + 1e-3).to(torch.uint8)


def _zooms(last: float, step: float) -> tuple[float, ...]:
    return tuple(np.arange(1, last, step).tolist())


CORRUPTIONS: dict[str, tuple[Corruption, Sequence[Any], Sequence[Any]]] = {
    "gaussian_noise": (gaussian_noise, (0.04, 0.06, 0.08, 0.09, 0.10), (0.08, 0.12, 0.18, 0.26, 0.38)),
    "shot_noise": (shot_noise, (500, 250, 100, 75, 50), (60, 25, 12, 5, 3)),
    "impulse_noise": (impulse_noise, (0.01, 0.02, 0.03, 0.05, 0.07), (0.03, 0.06, 0.09, 0.17, 0.27)),
    "defocus_blur": (
        defocus_blur,
        ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),
        ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)),
    ),
    "zoom_blur": (
        zoom_blur,
        tuple(_zooms(last, 0.01) for last in (1.06, 1.11, 1.16, 1.21, 1.26)),
        (_zooms(1.11, 0.01), _zooms(1.16, 0.01), _zooms(1.21, 0.02), _zooms(1.26, 0.02), _zooms(1.31, 0.03)),
    ),
    "brightness": (brightness, (0.05, 0.1, 0.15, 0.2, 0.3), (0.1, 0.2, 0.3, 0.4, 0.5)),
    "contrast": (contrast, (0.75, 0.5, 0.4, 0.3, 0.15), (0.4, 0.3, 0.2, 0.1, 0.05)),
    "saturate": (
        saturate,
        ((0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2)),
        ((0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (20, 0.2)),
    ),
    "pixelate": (pixelate, (0.95, 0.9, 0.85, 0.75, 0.65), (0.6, 0.5, 0.4, 0.3, 0.25)),
    "jpeg": (jpeg, (80, 65, 58, 50, 40), (25, 18, 15, 10, 7)),
}
"""For each corruption its function, and the constants of severities 1 to 5 for small and for large images."""


def corrupt(x: Tensor, name: str, severity: int, random: torch.Generator) -> Tensor:
    """Corrupts images.

    Args:
        x: (B, C, H, W) float, pixels in [0, 1].
        name: a key of `CORRUPTIONS`.
        severity: 1 to 5.
        random: random numbers, on the CPU.

    Returns:
        (B, C, H, W) of the dtype of x, multiples of 1 / 255 in [0, 1].
    """
    function, small, large = CORRUPTIONS[name]
    constants = (small if max(x.shape[2:]) <= SMALL_SIDE else large)[severity - 1]
    return to_bytes(function(x, constants, random)).to(x) / 255
