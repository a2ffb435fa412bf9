"""Intervals of means are Student's t, those of shares stay within 0 and 1, and both hold the mean as often as said."""

import math

import numpy as np
import pytest
from scipy import stats

from ssl_zoo.evaluators.proportion import wilson
from ssl_zoo.report.estimate import Estimate, with_interval


@pytest.mark.parametrize("values", [(0.7, 0.9), (0.81, 0.86, 0.88), (1.0, 2.0, 3.0, 4.0, 50.0)])
def test_interval_is_students_t(values: tuple[float, ...]) -> None:
    estimate = Estimate(values)
    low, high = stats.t.interval(0.95, len(values) - 1, np.mean(values), stats.sem(values))
    assert estimate.interval(is_share=False) == pytest.approx((low, high))
    assert estimate.half_width == pytest.approx((high - low) / 2)


def test_interval_of_three_known_values() -> None:
    """1, 2, 3: standard deviation 1, t(0.975, 2) = 4.3027, so 4.3027 / sqrt(3) = 2.4841."""
    assert Estimate((1.0, 2.0, 3.0)).half_width == pytest.approx(2.4841, abs=1e-4)


def test_one_value_has_no_interval() -> None:
    assert Estimate((0.8,)).half_width is None
    assert Estimate((0.8,)).interval(is_share=True) is None
    assert Estimate((0.8,), 400).interval(is_share=True) == wilson(0.8, 400)
    assert Estimate((80.0,), 400).interval(is_share=True) is None


def test_a_share_is_estimated_on_the_logit_scale() -> None:
    values = (0.977, 0.985)
    low, high = Estimate(values).interval(is_share=True) or (0, 0)
    assert 0 < low < 0.981 < high < 1
    half = Estimate(values).half_width
    assert half is not None
    for end, sign in ((low, -1), (high, 1)):
        logit = math.log(0.981 / 0.019) + sign * half / (0.981 * 0.019)
        assert math.log(end / (1 - end)) == pytest.approx(logit)
    narrow = Estimate((0.5001, 0.5, 0.4999))  # the plain interval where that is narrow
    assert narrow.interval(is_share=True) == pytest.approx(narrow.interval(is_share=False), abs=1e-6)


@pytest.mark.parametrize("values", [(1.0, 0.5), (0.0, 1e-9), (0.999, 0.2, 0.999, 1.0), (1.0, 1.0), (0.0, 0.0, 0.0)])
def test_it_stays_within_0_and_1_and_holds_the_mean(values: tuple[float, ...]) -> None:
    for examples in (None, 48):
        estimate = Estimate(values, examples)
        low, high = estimate.interval(is_share=True) or (2, 2)
        assert 0 <= low <= estimate.mean <= high <= 1


def test_equal_values_do_not_pretend_to_know_their_spread() -> None:
    assert Estimate((0.98, 0.98), 400).interval(is_share=True) == wilson(0.98, 400)
    assert Estimate((0.98, 0.98)).interval(is_share=True) == (0.98, 0.98)


def test_how_intervals_are_written() -> None:
    assert with_interval(81.04, (78.5, 83.58), 1) == "81.0 ± 2.5"
    assert with_interval(98.1, (93.3, 99.5), 1) == "98.1 (93.3 to 99.5)"
    assert with_interval(98.1, None, 2) == "98.10"
