"""Ops that move pixels: crops, flip, affine map and blur. Separable ones are two small matrix products per image.

Equal to torchvision's to rounding, which on a GPU that may use TF32 for products is 1e-3 of a value.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_zoo.views.keyed_random import KeyedRandom
from ssl_zoo.views.op import Crop, Op, Params, as_float, between, check_count, check_number, check_range, constants


def _check_mode(op: Op, interpolation: str) -> str:
    if interpolation not in ("bilinear", "bicubic"):
        raise ValueError(f"views: {type(op).__name__}.interpolation={interpolation!r}: give bilinear or bicubic")
    return interpolation


def _resize(x: Tensor, height: int, width: int, mode: str) -> Tensor:
    """Resizes all of x, antialiased. Bicubic overshoots [0, 1], which torchvision clamps for uint8 images too."""
    return F.interpolate(x, (height, width), mode=mode, antialias=True, align_corners=False).clamp_(0, 1)


def _resize_matrix(start: Tensor, extent: Tensor, length: int, size: int, mode: str) -> Tensor:
    """Matrices that resize a segment of a line of pixels, antialiased.

    Args:
        start: (B,), first pixel of the segment.
        extent: (B,), pixels of the segment.
        length: pixels of the line.
        size: pixels of the result.
        mode: bilinear or bicubic.

    Returns:
        (B, size, length).
    """
    scale = extent[:, None] / size
    width = scale.clamp(min=1)  # of the filter, in input pixels: when shrinking it covers all that merge into one
    pixels = torch.arange(length, device=start.device) + 0.5 - start[:, None]
    outside = (pixels < 0) | (pixels > extent[:, None])
    pixels = (pixels / width).masked_fill(outside, 1e6)  # so far away that their weight is zero
    centres = (torch.arange(size, device=start.device) + 0.5) * scale / width
    distance = (pixels[:, None, :] - centres[:, :, None]).abs_()
    weights = (1 - distance).clamp_(min=0)
    if mode == "bicubic":  # Keys' kernel with a = -0.5: the outer piece, and what the inner one adds to it
        outer = (2 - distance).clamp_(min=0)
        weights = outer * outer * (outer - 1) / 2 + weights * weights * (1 - 2 * weights)
    return weights.div_(weights.sum(2, keepdim=True))


def _on_both_axes(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Multiplies each image by its own two matrices.

    Args:
        x: (B, C, H, W).
        rows: (B, H', H).
        columns: (B, W', W).

    Returns:
        (B, C, H', W').
    """
    b, c, h, w = x.shape
    return rows[:, None] @ torch.bmm(x.reshape(b, c * h, w), columns.mT).view(b, c, h, -1)


class RandomResizedCrop(Crop):
    """Crops a box of random area and shape and resizes it, antialiased (Szegedy et al., CVPR 2015).

    Args:
        size: side of the result in pixels.
        scale: minimum and maximum area, as fractions of the image's.
        ratio: minimum and maximum width over height.
        interpolation: bilinear or bicubic.
    """

    def __init__(
        self,
        size: int,
        scale: Sequence[float],
        ratio: Sequence[float] = (3 / 4, 4 / 3),
        interpolation: str = "bilinear",
    ):
        self.size = check_count(self, "size", size)
        self.scale = check_range(self, "scale", scale, 1e-6, 1)
        self.ratio = check_range(self, "ratio", ratio, 1e-3, 1e3)
        self.mode = _check_mode(self, interpolation)

    def sample(self, random: KeyedRandom, x: Tensor) -> Params:
        """Top, left, height and width of the boxes, each (B,) int64: the first of ten tries that fits the image."""
        h, w = x.shape[-2:]
        u = random.uniform(22)
        area = between(*self.scale, u[:, :10]) * (h * w)
        ratio = torch.exp(between(math.log(self.ratio[0]), math.log(self.ratio[1]), u[:, 10:20]))
        heights, widths = torch.sqrt(area / ratio).round(), torch.sqrt(area * ratio).round()
        fits = (heights > 0) & (heights <= h) & (widths > 0) & (widths <= w)
        # Where none fits, an eleventh that always does: the largest central box with an allowed ratio.
        allowed = min(max(w / h, self.ratio[0]), self.ratio[1])
        heights = F.pad(heights, (0, 1), value=min(h, round(w / allowed)))
        widths = F.pad(widths, (0, 1), value=min(w, round(h * allowed)))
        first = F.pad(fits.int(), (0, 1), value=1).argmax(1, keepdim=True)
        height, width = heights.gather(1, first), widths.gather(1, first)
        corner = torch.where(first == 10, 0.4999, u[:, 20:])  # just under half: the first of two middle pixels
        corner = (corner * torch.cat([h - height + 1, w - width + 1], 1)).floor()
        top, left, height, width = torch.cat([corner, height, width], 1).long().unbind(1)
        return top, left, height, width

    def apply(self, x: Tensor, params: Params) -> Tensor:
        """Crops and resizes the boxes."""
        top, left, height, width = params
        rows = _resize_matrix(top, height, x.shape[-2], self.size, self.mode)
        columns = _resize_matrix(left, width, x.shape[-1], self.size, self.mode)
        return _on_both_axes(x, rows, columns).clamp_(0, 1)

    def crop(self, image: Tensor, random: KeyedRandom) -> Tensor:
        """Crops one image."""
        # For one image, a slice avoids the work on all pixels outside the box.
        top, left, height, width = (int(value) for value in self.sample(random, image[None]))
        box = as_float(image[None, :, top : top + height, left : left + width])
        return _resize(box, self.size, self.size, self.mode)[0]


class CenterCrop(Crop):
    """The central size x size pixels after the shorter side was resized to size / crop_ratio, antialiased.

    Args:
        size: side of the result in pixels; an image of the right size stays unchanged.
        crop_ratio: fraction of the shorter side that is kept, in (0, 1].
        interpolation: bilinear or bicubic.
    """

    def __init__(self, size: int, crop_ratio: float = 1.0, interpolation: str = "bilinear"):
        self.size = check_count(self, "size", size)
        self.shorter = round(size / check_number(self, "crop_ratio", crop_ratio, 1e-3, 1))
        self.mode = _check_mode(self, interpolation)

    def apply(self, x: Tensor, params: Params) -> Tensor:
        """Resizes and crops."""
        h, w = x.shape[-2:]
        if min(h, w) != self.shorter:
            h, w = self.shorter * h // min(h, w), self.shorter * w // min(h, w)
            x = _resize(x, h, w, self.mode)
        top, left = round((h - self.size) / 2), round((w - self.size) / 2)
        return x[..., top : top + self.size, left : left + self.size]

    def crop(self, image: Tensor, random: KeyedRandom) -> Tensor:
        """Crops one image."""
        return self.apply(as_float(image[None]), ())[0]


class HorizontalFlip(Op):
    """Exchanges left and right with probability p."""

    def __init__(self, p: float):
        self.p = check_number(self, "p", p, 0, 1)

    def apply(self, x: Tensor, params: Params) -> Tensor:
        """Flips x."""
        return x.flip(-1)


class RandomAffine(Op):
    """Rotation, shift, scale and horizontal shear about the centre, with probability p, bilinear.

    Args:
        degrees: maximum angle to either side.
        translate: maximum shift to either side, as a fraction of width and height. Shifts are not rounded to whole
            pixels, which matter on small images.
        scale: minimum and maximum.
        shear: maximum shear to either side, in degrees.
        fill: value outside the image, in [0, 1].
        p: probability that an image is changed.
    """

    def __init__(
        self,
        degrees: float,
        translate: float = 0.0,
        scale: Sequence[float] = (1.0, 1.0),
        shear: float = 0.0,
        fill: float = 0.0,
        p: float = 1.0,
    ):
        self.degrees = check_number(self, "degrees", degrees, 0, 180)
        self.translate = check_number(self, "translate", translate, 0, 1)
        self.scale = check_range(self, "scale", scale, 1e-3)
        self.shear = check_number(self, "shear", shear, 0, 89)
        self.fill = check_number(self, "fill", fill, 0, 1)
        self.p = check_number(self, "p", p, 0, 1)

    def sample(self, random: KeyedRandom, x: Tensor) -> Params:
        """Angle in degrees, shifts right and down in pixels, scale, shear in degrees, each (B,)."""
        h, w = x.shape[-2:]
        limits = constants(x, [self.degrees, self.translate * w, self.translate * h, self.shear])
        u = random.uniform(5)
        angle, right, down, shear = ((2 * u[:, :4] - 1) * limits).unbind(1)
        return angle, right, down, between(*self.scale, u[:, 4]), shear

    def apply(self, x: Tensor, params: Params) -> Tensor:
        """Applies the affine maps."""
        angle, right, down, scale, shear = params
        b, _, h, w = x.shape
        cos, sin, tan = angle.deg2rad().cos(), angle.deg2rad().sin(), shear.deg2rad().tan()
        # Maps output pixels to their source: the inverse of shift . rotate . scale . shear.
        inverse = torch.stack([cos - sin * tan, sin + cos * tan, -sin, cos], 1).view(b, 2, 2) / scale.view(b, 1, 1)
        x_axis = torch.arange(w, device=x.device) - (w - 1) / 2
        y_axis = torch.arange(h, device=x.device) - (h - 1) / 2
        pixels = torch.stack(torch.meshgrid(x_axis, y_axis, indexing="xy"), 2).view(1, h * w, 2)
        grid = (pixels - torch.stack([right, down], 1)[:, None]) @ inverse.mT / constants(x, [w / 2, h / 2])
        # An additional channel gives the share of each pixel that lies inside the image.
        sampled = F.grid_sample(F.pad(x, (0, 0, 0, 0, 0, 1), value=1), grid.view(b, h, w, 2), align_corners=False)
        return torch.lerp(x.new_full((), self.fill), sampled[:, :-1], sampled[:, -1:])


class GaussianBlur(Op):
    """Gaussian blur of random width with probability p; borders are reflected (SimCLR, appendix A).

    Args:
        kernel: side in pixels, odd; about a tenth of the image's.
        sigma: minimum and maximum standard deviation in pixels.
        p: probability that an image is changed.
    """

    def __init__(self, kernel: int, sigma: Sequence[float], p: float):
        self.kernel = check_count(self, "kernel", kernel)
        if kernel % 2 == 0:
            raise ValueError(f"views: GaussianBlur.kernel={kernel}: give an odd number, {kernel + 1} say")
        self.sigma = check_range(self, "sigma", sigma, 1e-3)
        self.p = check_number(self, "p", p, 0, 1)

    def sample(self, random: KeyedRandom, x: Tensor) -> Params:
        """Standard deviation in pixels, (B,)."""
        return (between(*self.sigma, random.uniform(1).squeeze(1)),)

    def apply(self, x: Tensor, params: Params) -> Tensor:
        """Blurs x."""
        (sigma,) = params
        offsets = torch.arange(self.kernel, device=x.device) - self.kernel // 2
        weights = torch.exp(-0.5 * (offsets / sigma[:, None]) ** 2)
        weights /= weights.sum(1, keepdim=True)
        return _on_both_axes(x, self._matrix(weights, x.shape[-2]), self._matrix(weights, x.shape[-1]))

    def _matrix(self, weights: Tensor, length: int) -> Tensor:
        """Matrices that blur a line of pixels: weights (B, kernel) -> (B, length, length)."""
        radius = self.kernel // 2
        if radius >= length:
            raise ValueError(
                f"views: GaussianBlur.kernel={self.kernel}: give {2 * length - 1} or less for {length} pixels"
            )
        lines = F.pad(torch.eye(length, device=weights.device)[None], (radius, radius), mode="reflect")[0]
        taps = lines.unfold(1, length, 1)  # (length, kernel, length): source pixel, tap, target pixel
        return torch.einsum("bk,ikj->bji", weights, taps)
