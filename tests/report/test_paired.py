"""Tests of paired measurements against scipy and statsmodels, at known values, and the coverage of their intervals."""

import math

import numpy as np
import pytest
from scipy import optimize, stats

from ssl_zoo.evaluators.proportion import Z
from ssl_zoo.report.paired import holm, mcnemar, paired_t, seeds_needed, tango


@pytest.mark.parametrize("n", [2, 3, 5, 30])
def test_paired_t_is_scipys(n: int) -> None:
    a, b = np.random.default_rng(n).normal(0.8, 0.02, (2, n))
    found, expected = paired_t(a, b), stats.ttest_rel(a, b)
    assert (found.mean, found.p) == pytest.approx((np.mean(a - b), expected.pvalue))
    assert (found.low, found.high) == pytest.approx(tuple(expected.confidence_interval(0.95)))
    assert found.n == n


def test_the_effect_is_unbiased() -> None:
    """The mean of Hedges' g_z over many samples is the true mean / deviation; Cohen's d_z is too large."""
    samples = np.random.default_rng(0).normal(0.8, 1, (20_000, 4))
    effects = [paired_t(sample, np.zeros(4)).effect for sample in samples[:4000]]
    assert np.mean([effect for effect in effects if effect is not None]) == pytest.approx(0.8, abs=0.03)
    cohen = samples.mean(1) / samples.std(1, ddof=1)
    assert cohen.mean() == pytest.approx(0.8 / math.sqrt(2 / 3) * math.gamma(1.0) / math.gamma(1.5), abs=0.02)
    assert paired_t([1, 2], [1.5, 3]).effect is None


def test_a_spread_that_is_not_known_is_no_certainty() -> None:
    for a, b in (([0.9, 0.8], [0.8, 0.7]), ([0.9, 0.8, 0.7], [0.9, 0.8, 0.7])):
        with pytest.raises(ValueError, match="same in every seed"):
            paired_t(a, b)
    with pytest.raises(ValueError, match="one seed"):
        paired_t([0.9], [0.8])
    assert paired_t([1.0, 0.2], [0.0, 0.1], limit=1.0).high == 1.0


def outcomes(gained: int, lost: int, both: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    a = np.repeat([True, False, True, False], [gained, lost, both, neither])
    b = np.repeat([False, True, True, False], [gained, lost, both, neither])
    return a, b


@pytest.mark.parametrize(
    "counts", [(12, 2, 30, 6), (2, 12, 30, 6), (5, 5, 1, 1), (0, 0, 3, 1), (1, 0, 0, 0), (7, 0, 0, 9)]
)
def test_mcnemar_is_statsmodels(counts: tuple[int, int, int, int]) -> None:
    from statsmodels.stats.contingency_tables import mcnemar as exact

    gained, lost, both, neither = counts
    found = mcnemar(*outcomes(*counts))
    assert found.p == pytest.approx(exact([[both, gained], [lost, neither]], exact=True).pvalue)
    assert found.mean == pytest.approx((gained - lost) / sum(counts))
    assert -1 <= found.low <= found.mean <= found.high <= 1
    if gained + lost:
        assert found.effect == pytest.approx(gained / (gained + lost) - 0.5)


@pytest.mark.parametrize(("gained", "lost", "n"), [(12, 2, 50), (0, 4, 40), (30, 25, 400), (1, 1, 2), (0, 1, 44)])
def test_the_ends_of_tangos_interval_are_just_not_refused(gained: int, lost: int, n: int) -> None:
    """At each end the score is Z, with the variance of the most likely probabilities, which are searched here."""

    def likelihood(q: float, d: float) -> float:  # q: the probability of lost, q + d of gained
        cells = ((gained, q + d), (lost, q), (n - gained - lost, 1 - 2 * q - d))
        return -sum(count * math.log(max(p, 1e-300)) for count, p in cells if count)

    for d in tango(gained, lost, n):
        bounds = (max(0.0, -d), (1 - d) / 2)
        q = optimize.minimize_scalar(likelihood, bounds=bounds, args=(d,), method="bounded", options={"xatol": 1e-12}).x
        score = (gained - lost - n * d) / math.sqrt(n * (2 * q + d - d * d))
        assert abs(score) == pytest.approx(Z, rel=1e-4)


def test_known_intervals_of_tango() -> None:
    """Without a discordant pair the ends are Z^2 / (n + Z^2) away; an exchange of the two changes the sign."""
    assert tango(0, 0, 400) == pytest.approx((-(Z**2) / (400 + Z**2), Z**2 / (400 + Z**2)))
    assert tango(3, 8, 90) == pytest.approx(tuple(-end for end in reversed(tango(8, 3, 90))))
    assert tango(5, 0, 5)[1] == 1.0
    assert tango(0, 5, 5)[0] == -1.0


@pytest.mark.parametrize("count", [0, 1, 2, 40])
def test_holm_is_statsmodels(count: int) -> None:
    from statsmodels.stats.multitest import multipletests

    p = np.random.default_rng(count).random(count) ** 4
    p[1:2] = p[:1]  # ties
    assert holm(p.tolist()) == pytest.approx(multipletests(p, method="holm")[1] if count else [])


@pytest.mark.parametrize("effect", [0.1, 0.1666, 0.5, 1.0, 1.6667])
@pytest.mark.parametrize("comparisons", [1, 10])
def test_seeds_needed_are_those_of_statsmodels(effect: float, comparisons: int) -> None:
    from statsmodels.stats.power import TTestPower

    expected = TTestPower().solve_power(effect, alpha=0.05 / comparisons, power=0.8)
    found = seeds_needed(0.005, 0.005 / effect, comparisons)
    assert found == (math.ceil(expected) if expected <= 1000 else None)


def test_seeds_needed_far_from_0() -> None:
    """There statsmodels has no number; the power of n seeds is simulated."""
    draws = np.random.default_rng(0).normal(8, 1, (20_000, 4))
    for comparisons, expected in ((1, 3), (10, 4)):
        for n, shown in ((expected, True), (expected - 1, False)):
            t = draws[:, :n].mean(1) / draws[:, :n].std(1, ddof=1) * n**0.5
            assert (np.mean(t > stats.t.isf(0.025 / comparisons, n - 1)) >= 0.8) == shown
        assert seeds_needed(8, 1, comparisons) == expected
    assert seeds_needed(8, 1e-9) == 2
    assert seeds_needed(1e-9, 8) is None
