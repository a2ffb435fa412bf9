"""What every op of a pipeline is, and the checks of what a user wrote in its config."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ssl_zoo.views.draws import Draws, SampledRows

Params = tuple[Tensor, ...]
"""What an op drew: tensors whose first dimension is the example."""


def change(x: Tensor, chosen: Tensor, function: Callable[[Tensor, SampledRows], Tensor]) -> Tensor:
    """`function(x[rows], rows)` for the chosen (B,) examples, the others as they are. It keeps the shape."""
    if x.device.type != "cpu":  # there, counting the chosen would make the host wait for the device
        return torch.where(each(chosen), function(x, slice(None)), x)
    rows = chosen.nonzero().squeeze(1)
    return x.index_copy(0, rows, function(x.index_select(0, rows), rows)) if len(rows) else x


class Op:
    """One step of a pipeline. `draw` finds each example's parameters, `apply` computes; calling the op does both.

    p: the chance that an example is changed at all.
    """

    p: float = 1.0

    def draw(self, draws: Draws, x: Tensor) -> Params:
        """The parameters for the examples that `draws` stands for; x (B, C, H, W) tells the size of their images."""
        return ()

    def apply(self, x: Tensor, params: Params) -> Tensor:
        """x (B, C, H, W) float32 in [0, 1], changed; the same range, `Normalize` excepted."""
        raise NotImplementedError

    def __call__(self, x: Tensor, draws: Draws) -> Tensor:
        if self.p == 0:
            return x
        if self.p == 1:
            return self.apply(x, self.draw(draws, x))
        return change(x, draws.chance() < self.p, lambda some, rows: self.apply(some, self.draw(draws[rows], some)))


class Crop(Op):
    """An op that gives images of any size one size. As the first of a pipeline it may run in a data-loader worker."""

    def crop(self, image: Tensor, draws: Draws) -> Tensor:
        """The same for one image, (C, H, W) uint8 -> (C, S, S) float32 in [0, 1], however large."""
        raise NotImplementedError


def each(values: Tensor) -> Tensor:
    """(B,) -> (B, 1, 1, 1): one value for each image."""
    return values.view(-1, 1, 1, 1)


def constants(x: Tensor, values: Sequence[float]) -> Tensor:
    """The values, (n,), of the type and on the device of x, filled in there: a copy from the host waits for a GPU."""
    return torch.stack([x.new_full((), value) for value in values])


def between(low: float, high: float, u: Tensor) -> Tensor:
    """Uniforms in [0, 1) stretched to [low, high)."""
    return low + (high - low) * u


def as_float(x: Tensor) -> Tensor:
    """uint8 images as float32 in [0, 1]; anything else as it is."""
    return x.float().div_(255) if x.dtype == torch.uint8 else x


def number(op: Op, key: str, value: float, low: float, high: float = math.inf) -> float:
    """`value` if it is a number from low to high, else ValueError."""
    if not isinstance(value, (int, float)) or not low <= value <= high:
        raise ValueError(f"views: {type(op).__name__}.{key}={value!r}: give a number from {low:g} to {high:g}")
    return float(value)


def span(op: Op, key: str, value: Sequence[float], low: float, high: float = math.inf) -> tuple[float, float]:
    """`value` as (least, most) if these lie from low to high, else ValueError."""
    if not isinstance(value, (list, tuple)) or len(value) != 2:
        raise ValueError(f"views: {type(op).__name__}.{key}={value!r}: give two numbers, [least, most]")
    least = number(op, key, value[0], low, high)
    return least, number(op, key, value[1], least, high)


def count(op: Op, key: str, value: int) -> int:
    """`value` if it is a whole number of at least 1, else ValueError."""
    if not isinstance(value, int) or value < 1:
        raise ValueError(f"views: {type(op).__name__}.{key}={value!r}: give a whole number of at least 1")
    return value
