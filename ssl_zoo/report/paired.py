"""Tests of paired measurements: over seeds by Student's t, over test examples by McNemar; Holm; how many seeds to run.

scipy's tests where it has one; Tango's interval is our own. `benchmarks/coverage.py` measures how often the intervals
hold the true difference.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ssl_zoo.evaluators.proportion import Z

PAIRED_T = "paired t over seeds"
MCNEMAR = "exact McNemar over test examples"
POWER = 0.8
"""Probability with which the number of seeds of `seeds_needed` shows a difference."""
MAX_SEEDS = 1000


@dataclass(frozen=True)
class PairedTest:
    """A test of one difference.

    Attributes:
        name: `PAIRED_T` or `MCNEMAR`.
        mean: the difference.
        low: lower end of its 95 % interval.
        high: upper end.
        p: two-sided, before any correction for several comparisons.
        effect: effect size; None where it is not defined.
        effect_name: its name.
        n: seeds, or test examples.
        deviation: standard deviation of the differences between seeds, None over test examples.
    """

    name: str
    mean: float
    low: float
    high: float
    p: float
    effect: float | None
    effect_name: str
    n: int
    deviation: float | None = None


def paired_t(a: Sequence[float], b: Sequence[float], limit: float = math.inf) -> PairedTest:
    """Student's t on the differences a - b of n >= 2 seeds, with the interval of t, cut to [-limit, limit].

    The effect size is Hedges' g_z: mean / deviation, Cohen's d_z, times the correction of its bias for small n, which
    is 0 for n = 2 (Hedges, "Distribution Theory for Glass's Estimator of Effect Size", 1981).

    Raises:
        ValueError: for fewer than two seeds, or differences that are all equal.
    """
    from scipy.special import gammaln, stdtr, stdtrit  # not scipy.stats, which takes milliseconds per test

    differences = np.subtract(a, b)
    n, mean = len(differences), float(np.mean(differences))
    if n < 2:
        raise ValueError("one seed has no spread")
    deviation = float(np.std(differences, ddof=1))
    if deviation <= 1e-12 * max(abs(mean), float(np.max(np.abs(a))), float(np.max(np.abs(b)))):
        raise ValueError("the difference is the same in every seed, so that its spread is not known")
    m, error = n - 1, deviation / math.sqrt(n)
    p, half = 2 * float(stdtr(m, -abs(mean) / error)), float(stdtrit(m, 0.975)) * error
    effect = None
    if n > 2:
        effect = mean / deviation * math.exp(gammaln(m / 2) - gammaln((m - 1) / 2)) * math.sqrt(2 / m)
    low, high = max(mean - half, -limit), min(mean + half, limit)
    return PairedTest(PAIRED_T, mean, low, high, p, effect, "Hedges' g_z", n, deviation)


def mcnemar(a: np.ndarray, b: np.ndarray) -> PairedTest:
    """McNemar's exact test of two classifiers on the same n examples, with Tango's score interval of a - b.

    The test is binomial: of the examples that one alone gets right, each is expected to have half (McNemar,
    "Note on the Sampling Error of the Difference between Correlated Proportions", Psychometrika 12, 1947). The effect
    size is Cohen's g, the share of these examples that `a` gets right, less 1/2.

    Args:
        a: (n,) bool, which examples are right.
        b: the same of the other classifier.
    """
    from scipy.special import bdtr

    gained, lost, n = int((a & ~b).sum()), int((b & ~a).sum()), len(a)
    p = min(1.0, 2 * float(bdtr(min(gained, lost), gained + lost, 0.5)))
    effect = gained / (gained + lost) - 0.5 if gained + lost else None
    return PairedTest(MCNEMAR, (gained - lost) / n, *tango(gained, lost, n), p, effect, "Cohen's g", n)


def tango(gained: int, lost: int, n: int) -> tuple[float, float]:
    """The 95 % score interval of the difference (gained - lost) / n of two proportions of the same n examples.

    Tango, "Equivalence Test and Confidence Interval for the Difference in Proportions for the Paired-Sample Design",
    Statistics in Medicine 17 (1998), Section 3: all differences d that are at most Z standard deviations away, with the
    variance (2 q + d - d^2) / n, where q is the most likely share of lost examples, given d.

    Args:
        gained: examples that the first alone gets right.
        lost: those that the second alone gets right.
        n: all examples.

    Returns:
        Lower and upper end.
    """
    from scipy.optimize import brentq

    def score(d: float) -> float:
        b = (2 * n - gained + lost) * d - gained - lost
        q = (math.sqrt(max(b * b + 8 * n * lost * d * (1 - d), 0.0)) - b) / (4 * n)
        return (gained - lost - n * d) - Z * sign * math.sqrt(max(n * (2 * q + d - d * d), 0.0))

    found, ends = (gained - lost) / n, []
    for sign in (1, -1):
        # Beside the difference itself, where variance and score are 0 if the two agree on all examples.
        near, end = found - 1e-9 * sign, -float(sign)
        ends.append(end if abs(near) >= 1 else brentq(score, end, near))
    return ends[0], ends[1]


def holm(p: Sequence[float]) -> list[float]:
    """Adjusts p for len(p) comparisons: the probability of any false finding among those up to 0.05 is at most 5 %.

    Holm, "A Simple Sequentially Rejective Multiple Test Procedure", Scandinavian Journal of Statistics 6 (1979).
    """
    adjusted, highest = [0.0] * len(p), 0.0
    for rank, place in enumerate(sorted(range(len(p)), key=lambda place: p[place])):
        highest = max(highest, min(1.0, (len(p) - rank) * p[place]))
        adjusted[place] = highest
    return adjusted


def seeds_needed(difference: float, deviation: float, comparisons: int = 1) -> int | None:
    """The least number of seeds with which a paired t shows a difference with a probability of `POWER`.

    By the noncentral t distribution (Cohen, "Statistical Power Analysis", 1988), two-sided at 0.05 / comparisons, which
    is what the smallest of several p has to reach by Holm.

    Args:
        difference: that is to be shown, above 0.
        deviation: of the differences between seeds; estimated from few seeds it is uncertain, and so is the result.
        comparisons: how many are made.

    Returns:
        2 to `MAX_SEEDS`; None for more.
    """
    from scipy.special import ndtr, ndtri, stdtrit  # scipy.stats takes seconds to import

    def power(n: int) -> float:
        limit, away = -stdtrit(n - 1, 0.025 / comparisons), difference / deviation * math.sqrt(n)
        # The noncentral t as a mean over quantiles of the deviation; scipy's own has no number far from 0.
        return float(ndtr(away - limit * _deviations(n)).mean())

    # With a known deviation, by the normal distribution, fewer would do.
    least = (ndtri(POWER) - ndtri(0.025 / comparisons)) * deviation / difference
    n = max(2, math.ceil(min(least, MAX_SEEDS) ** 2))
    while n <= MAX_SEEDS and power(n) < POWER:
        n += 1
    return n if n <= MAX_SEEDS else None


@lru_cache(maxsize=MAX_SEEDS)
def _deviations(n: int) -> np.ndarray:
    """1,000 equally probable standard deviations of n draws from the standard normal distribution."""
    from scipy.special import gammaincinv

    quantiles = 2 * gammaincinv((n - 1) / 2, (np.arange(1000) + 0.5) / 1000)  # of chi^2 with n - 1 degrees of freedom
    return np.sqrt(quantiles / (n - 1))
