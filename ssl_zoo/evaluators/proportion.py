"""Accuracies with the number of examples they were measured on, and binomial intervals that stay within 0 and 1."""

import hashlib
import json
import math
from typing import Any, Self

import numpy as np

Z = 1.959963984540054
"""The 97.5 % quantile of the normal distribution, for two-sided intervals of 95 %."""


class Counted(float):
    """A float with one more attribute, `n`, the number of examples it was measured on."""

    n: int

    def __new__(cls, value: float, n: int) -> Self:
        """Makes the number."""
        self = super().__new__(cls, value)
        self.n = n
        return self

    def __getnewargs__(self) -> tuple[float, int]:  # type: ignore[override]  # for copies and pickles
        return float(self), self.n


class Proportion(Counted):
    """A share of n examples or tokens, in [0, 1], with its `interval`.

    Attributes:
        right: (n,) bool, for each example whether it is among the share; None where that is not kept.
        examples: identifies these examples and their order; "" for the labelled test split in the order of its indices.
    """

    right: np.ndarray | None = None
    examples: str = ""

    def __new__(cls, value: float, n: int) -> Self:
        """Makes the number.

        Raises:
            ValueError: for a value outside [0, 1] or no examples.
        """
        if not 0 <= value <= 1 or n < 1:
            raise ValueError(f"{value} of {n} examples is no proportion")
        return super().__new__(cls, value, n)

    @classmethod
    def of(cls, right: Any, examples: str = "") -> Self:
        """The share of True in `right`, which is kept so that runs can be compared example by example.

        Args:
            right: (n,) bool, an array or a tensor on the CPU.
            examples: see the attribute.

        Raises:
            ValueError: for no examples.
        """
        right = np.asarray(right, dtype=bool)
        self = cls(float(right.mean()) if len(right) else math.nan, len(right))
        self.right, self.examples = right, examples
        return self

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of Wilson (1927) for n independent examples; it does not cover variation between seeds."""
        return wilson(self, self.n)

    @property
    def percent(self) -> str:
        """The value and its interval, such as "94.0 % (91.2 to 95.9)"."""
        low, high = self.interval
        return f"{100 * self:.1f} % ({100 * low:.1f} to {100 * high:.1f})"


def hash_examples(*parts: Any) -> str:
    """A hash of what determines test examples and their order: arrays, tensors on the CPU, or JSON values."""
    digest = hashlib.sha256()
    for part in parts:
        content = np.asarray(part).tobytes() if hasattr(part, "dtype") else json.dumps(part, sort_keys=True).encode()
        digest.update(len(content).to_bytes(8, "little") + content)
    return digest.hexdigest()[:32]


def wilson(share: float, n: int) -> tuple[float, float]:
    """The score interval: all p for which `share` is at most Z standard deviations, sqrt(p (1 - p) / n), away from p.

    Wilson, "Probable Inference, the Law of Succession, and Statistical Inference", JASA 22 (1927).

    Args:
        share: in [0, 1].
        n: number of examples.

    Returns:
        Lower and upper end.
    """
    scale = 1 + Z**2 / n
    centre = (share + Z**2 / (2 * n)) / scale
    half = Z * math.sqrt(share * (1 - share) / n + Z**2 / (4 * n**2)) / scale
    low, high = centre - half, centre + half
    return max(min(low, share), 0.0), min(max(high, share), 1.0)  # rounding must not exclude the share itself


def is_greater(a: Proportion, b: Proportion) -> bool:
    """Whether a exceeds b by more than Z standard deviations of the difference of two independent shares.

    On the same test examples errors are correlated, so the criterion is stricter than necessary there.
    """
    return a - b > Z * math.sqrt(a * (1 - a) / a.n + b * (1 - b) / b.n)
