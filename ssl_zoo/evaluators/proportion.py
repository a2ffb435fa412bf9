"""Accuracies that know how many examples they are of, and their binomial intervals, which stay within 0 and 1."""

import math

Z = 1.959963984540054
"""The normal quantile of 97.5 %: two-sided intervals of 95 %."""


class Proportion(float):
    """A share of n examples, or tokens, in [0, 1]: a float in all respects, with its `n` and `interval`."""

    n: int

    def __new__(cls, value: float, n: int) -> "Proportion":
        """Raises: ValueError for a value outside [0, 1] or no examples."""
        if not 0 <= value <= 1 or n < 1:
            raise ValueError(f"{value} of {n} examples is no proportion")
        self = super().__new__(cls, value)
        self.n = n
        return self

    def __getnewargs__(self) -> tuple[float, int]:  # type: ignore[override]  # for copies and pickles
        return float(self), self.n

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of Wilson (1927), by n independent examples: it says nothing of other seeds."""
        return wilson(self, self.n)

    @property
    def percent(self) -> str:
        """ "94.0 % (91.2 to 95.9)": the value and its interval."""
        low, high = self.interval
        return f"{100 * self:.1f} % ({100 * low:.1f} to {100 * high:.1f})"


def wilson(share: float, n: int) -> tuple[float, float]:
    """The score interval: all p for which `share` of n lies within Z standard deviations, sqrt(p (1 - p) / n), of p.

    Wilson, "Probable Inference, the Law of Succession, and Statistical Inference", JASA 22 (1927).
    """
    scale = 1 + Z**2 / n
    centre = (share + Z**2 / (2 * n)) / scale
    half = Z * math.sqrt(share * (1 - share) / n + Z**2 / (4 * n**2)) / scale
    return max(min(centre - half, share), 0.0), min(max(centre + half, share), 1.0)  # rounding leaves share inside


def is_greater(a: Proportion, b: Proportion) -> bool:
    """Whether a exceeds b by more than chance: Z standard deviations of the difference of two independent shares.

    For the same test examples, whose errors go together, that asks for more than it needs to.
    """
    return a - b > Z * math.sqrt(a * (1 - a) / a.n + b * (1 - b) / b.n)
