"""The interface of the ops of a pipeline, and the checks of their settings."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ssl_zoo.views.keyed_random import BatchRows, KeyedRandom

Params = tuple[Tensor, ...]
"""Random parameters of an op: tensors whose first dimension is the example."""


def change(x: Tensor, chosen: Tensor, function: Callable[[Tensor, BatchRows], Tensor]) -> Tensor:
    """Applies a function to some of the examples and keeps the others.

    Args:
        x: (B, ...).
        chosen: (B,) bool, the examples to change.
        function: called as `function(x[rows], rows)`; keeps the shape.
    """
    if x.device.type != "cpu":  # counting the chosen would make the host wait for the device
        return torch.where(per_image(chosen), function(x, slice(None)), x)
    rows = chosen.nonzero().squeeze(1)
    return x.index_copy(0, rows, function(x.index_select(0, rows), rows)) if len(rows) else x


class Op:
    """One step of a pipeline: `sample` finds each example's random parameters, `apply` computes; a call does both.

    Attributes:
        p: probability that an example is changed at all.
    """

    p: float = 1.0

    def sample(self, random: KeyedRandom, x: Tensor) -> Params:
        """Random parameters of each example.

        Args:
            random: the random numbers of the examples.
            x: (B, C, H, W), for the size of the images.
        """
        return ()

    def apply(self, x: Tensor, params: Params) -> Tensor:
        """Changes x, (B, C, H, W) float32 in [0, 1]; the range stays, except for `Normalize`."""
        raise NotImplementedError

    def __call__(self, x: Tensor, random: KeyedRandom) -> Tensor:
        """Samples parameters and changes x, each example with probability p."""
        if self.p == 0:
            return x
        if self.p == 1:
            return self.apply(x, self.sample(random, x))
        return change(x, random.chance() < self.p, lambda some, rows: self.apply(some, self.sample(random[rows], some)))


class Crop(Op):
    """An op that brings images of any size to one size. As the first op of a pipeline it may run in a worker."""

    def crop(self, image: Tensor, random: KeyedRandom) -> Tensor:
        """Crops one image of any size, (C, H, W) uint8 -> (C, S, S) float32 in [0, 1]."""
        raise NotImplementedError


def per_image(values: Tensor) -> Tensor:
    """Reshapes (B,) to (B, 1, 1, 1): one value per image."""
    return values.view(-1, 1, 1, 1)


def constants(x: Tensor, values: Sequence[float]) -> Tensor:
    """The values, (n,), with the dtype and device of x, filled in there: copying from the host would wait for a GPU."""
    return torch.stack([x.new_full((), value) for value in values])


def between(low: float, high: float, u: Tensor) -> Tensor:
    """Scales uniforms in [0, 1) to [low, high)."""
    return low + (high - low) * u


def as_float(x: Tensor) -> Tensor:
    """Converts uint8 images to float32 in [0, 1] and returns anything else unchanged."""
    return x.float().div_(255) if x.dtype == torch.uint8 else x


def check_number(op: Op, key: str, value: float, low: float, high: float = math.inf) -> float:
    """Returns `value`.

    Raises:
        ValueError: unless it is a number from low to high.
    """
    if not isinstance(value, (int, float)) or not low <= value <= high:
        raise ValueError(f"views: {type(op).__name__}.{key}={value!r}: give a number from {low:g} to {high:g}")
    return float(value)


def check_range(op: Op, key: str, value: Sequence[float], low: float, high: float = math.inf) -> tuple[float, float]:
    """Returns `value` as (min, max).

    Raises:
        ValueError: unless these are two ascending numbers from low to high.
    """
    if not isinstance(value, (list, tuple)) or len(value) != 2:
        raise ValueError(f"views: {type(op).__name__}.{key}={value!r}: give two numbers, [min, max]")
    minimum = check_number(op, key, value[0], low, high)
    return minimum, check_number(op, key, value[1], minimum, high)


def check_count(op: Op, key: str, value: int) -> int:
    """Returns `value`.

    Raises:
        ValueError: unless it is a whole number of at least 1.
    """
    if not isinstance(value, int) or value < 1:
        raise ValueError(f"views: {type(op).__name__}.{key}={value!r}: give a whole number of at least 1")
    return value
