"""Rank correlations with the number of pairs they were measured on, and intervals that stay within -1 and 1."""

import math
from typing import Self

from ssl_zoo.evaluators.proportion import Counted, Z


class Correlation(Counted):
    """Spearman's correlation over n pairs, in [-1, 1] or NaN, with its `interval`."""

    def __new__(cls, value: float, n: int) -> Self:
        """Makes the number.

        Raises:
            ValueError: for a value outside [-1, 1], or fewer than two pairs.
        """
        if abs(value) > 1 or n < 2:
            raise ValueError(f"{value} of {n} pairs is no correlation")
        return super().__new__(cls, value, n)

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval for n independent pairs; it does not cover variation between seeds."""
        return fisher(self, self.n)

    @property
    def with_interval(self) -> str:
        """The value and its interval, such as "0.693 (0.662 to 0.722)"."""
        if math.isnan(self):
            return "undefined: all cosines are equal"
        low, high = self.interval
        return f"{self:.3f} ({low:.3f} to {high:.3f})"


def fisher(correlation: float, n: int) -> tuple[float, float]:
    """The 95 % interval of Spearman's correlation by Fisher's z, with variance (1 + r^2 / 2) / (n - 3).

    Bonett and Wright, "Sample Size Requirements for Estimating Pearson, Kendall and Spearman Correlations",
    Psychometrika 65 (2000), Section 4.

    Args:
        correlation: in [-1, 1].
        n: number of pairs.

    Returns:
        Lower and upper end; (-1, 1) for up to three pairs, the correlation itself where it is -1 or 1.
    """
    if n <= 3:
        return -1.0, 1.0
    if abs(correlation) == 1:
        return correlation, correlation
    z, half = math.atanh(correlation), Z * math.sqrt((1 + correlation**2 / 2) / (n - 3))
    return math.tanh(z - half), math.tanh(z + half)
