"""Ops that change values and do not move pixels."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ssl_zoo.views.keyed_random import KeyedRandom
from ssl_zoo.views.op import Op, Params, between, change, check_number, constants, per_image


def _gray(x: Tensor) -> Tensor:
    """Luma with torchvision's weights, or the mean of the channels unless C is 3: (B, C, H, W) -> (B, 1, H, W)."""
    if x.shape[1] != 3:
        return x.mean(1, keepdim=True)
    return (x[:, :1] * 0.2989).add_(x[:, 1:2], alpha=0.587).add_(x[:, 2:], alpha=0.114)


def _equal(x: Tensor, y: Tensor) -> Tensor:
    """1.0 where equal, else 0.0. Compares straight into floats: a cast from bool takes ten times as long."""
    return torch.eq(x, y, out=torch.empty_like(y))


def _turn_hue(x: Tensor, turn: Tensor) -> Tensor:
    """Moves the hue of x (B, 3, H, W) by `turn` (B,), in full circles, as a conversion to HSV and back would."""
    red, green, blue = x.split(1, 1)
    value = x.amax(1, keepdim=True)
    minimum = x.amin(1, keepdim=True)
    chroma = value - minimum
    per_sixth = 1 / chroma.clamp(min=1e-12)
    # Hue in sixths of a circle from red, by the largest channel; among equal ones red precedes green, then blue.
    hue = torch.lerp((red - green) * per_sixth + 4, (blue - red) * per_sixth + 2, _equal(green, value))
    hue = torch.lerp(hue, (green - blue) * per_sixth, _equal(red, value)) / 6 + per_image(turn)
    hue = (hue - hue.floor()) * 6
    # The share of the chroma that each channel has: the same trapezium over the circle for all three, rotated.
    share = (hue - constants(x, [3.0, 2.0, 4.0]).view(3, 1, 1)).abs_()
    share[:, :1].sub_(1)
    share[:, 1:].neg_().add_(2)
    return torch.addcmul(minimum, chroma, share.clamp_(0, 1))


class ColorJitter(Op):
    """Changes brightness, contrast, saturation and hue, in a random order per example, with probability p.

    The first three are factors from [max(0, 1 - strength), 1 + strength]; hue is moved by up to `hue` <= 0.5 circles to
    either side. Images of one channel have neither saturation nor hue, and other images than colour ones have no hue.
    """

    BRIGHTNESS = 0
    CONTRAST = 1
    SATURATION = 2
    HUE = 3

    def __init__(self, brightness: float, contrast: float, saturation: float, hue: float, p: float = 1.0):
        strengths = {"brightness": brightness, "contrast": contrast, "saturation": saturation}
        self.strengths = [check_number(self, key, value, 0) for key, value in strengths.items()]
        self.hue = check_number(self, "hue", hue, 0, 0.5)
        self.p = check_number(self, "p", p, 0, 1)

    def sample(self, random: KeyedRandom, x: Tensor) -> Params:
        """Order and amounts of the four adjustments.

        Returns:
            (B, 4) int64, the adjustments from first to last, numbered as the constants above; and (B, 4) float32, the
            amount of each, in the order of the constants.
        """
        u = random.uniform(8)
        ranges = [(max(0.0, 1 - s), 1 + s) for s in self.strengths] + [(-self.hue, self.hue)]
        amounts = [between(low, high, u[:, i]) for i, (low, high) in enumerate(ranges)]
        return u[:, 4:].argsort(1), torch.stack(amounts, 1)

    def apply(self, x: Tensor, params: Params) -> Tensor:
        """Applies the four adjustments."""
        order, amounts = params
        for adjustment in order.unbind(1):
            x = self._apply_adjustment(x, adjustment, amounts.gather(1, adjustment[:, None]).squeeze(1))
        return x

    def _apply_adjustment(self, x: Tensor, adjustment: Tensor, amount: Tensor) -> Tensor:
        """Applies one adjustment, (B,) int64, to each example. All but hue interpolate with a plainer image."""
        turned = adjustment == self.HUE
        gray = _gray(x)
        plainer = gray * per_image(adjustment == self.SATURATION) + per_image(
            gray.mean((1, 2, 3)) * (adjustment == self.CONTRAST)
        )
        x = torch.lerp(plainer, x, per_image(amount.masked_fill(turned, 1))).clamp_(0, 1)
        if x.shape[1] != 3 or self.hue == 0:
            return x
        return change(x, turned, lambda some, rows: _turn_hue(some, amount[rows]))


class Grayscale(Op):
    """Sets all channels to the luma with probability p; unless there are three, to their mean."""

    def __init__(self, p: float):
        self.p = check_number(self, "p", p, 0, 1)

    def apply(self, x: Tensor, params: Params) -> Tensor:
        """Sets the channels."""
        return _gray(x).expand_as(x)


class Solarize(Op):
    """Inverts values of `threshold`, in [0, 1], and above, with probability p."""

    def __init__(self, threshold: float, p: float):
        self.threshold = check_number(self, "threshold", threshold, 0, 1)
        self.p = check_number(self, "p", p, 0, 1)

    def apply(self, x: Tensor, params: Params) -> Tensor:
        """Inverts the values."""
        return torch.where(x >= self.threshold, 1 - x, x)


class AdditiveNoise(Op):
    """Adds independent Gaussian noise of standard deviation `std` to every value and clamps the sum to [0, 1]."""

    def __init__(self, std: float):
        self.std = check_number(self, "std", std, 0)

    def sample(self, random: KeyedRandom, x: Tensor) -> Params:
        """Standard normals, (B, C, H, W)."""
        return (random.normal(x[0].numel()).view_as(x),)

    def apply(self, x: Tensor, params: Params) -> Tensor:
        """Adds the noise."""
        (noise,) = params
        return torch.add(x, noise, alpha=self.std).clamp_(0, 1)


class Normalize(Op):
    """Computes (x - mean) / std per channel. Comes last, since the other ops expect [0, 1]."""

    def __init__(self, mean: Sequence[float], std: Sequence[float]):
        self.mean = [check_number(self, "mean", value, 0, 1) for value in mean]
        self.std = [check_number(self, "std", value, 1e-6) for value in std]

    def apply(self, x: Tensor, params: Params) -> Tensor:
        """Normalises x.

        Raises:
            ValueError: unless mean and std have as many numbers as x has channels.
        """
        if not len(self.mean) == len(self.std) == x.shape[1]:
            raise ValueError(
                f"views: Normalize.mean={self.mean}, std={self.std}: give {x.shape[1]} numbers each, one a channel"
            )
        mean, std = (constants(x, values).view(-1, 1, 1) for values in (self.mean, self.std))
        return torch.addcmul(-mean / std, x, 1 / std)
