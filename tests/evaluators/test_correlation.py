"""Correlations keep their n; their intervals against a formula and a simulation."""

import copy
import math
import pickle

import numpy as np
import pytest
from scipy.stats import spearmanr

from ssl_zoo.evaluators.correlation import Correlation, fisher


def test_is_a_float_with_n() -> None:
    value = Correlation(0.7, 1379)
    assert value == 0.7
    for same in (copy.deepcopy(value), pickle.loads(pickle.dumps(value))):
        assert (same, same.n, same.interval) == (value, 1379, value.interval)
    assert value.with_interval == "0.700 (0.669 to 0.729)"
    assert "undefined" in Correlation(math.nan, 10).with_interval


@pytest.mark.parametrize(("value", "n"), [(1.1, 10), (-1.1, 10), (0.5, 1)])
def test_what_is_no_correlation(value: float, n: int) -> None:
    with pytest.raises(ValueError, match="is no correlation"):
        Correlation(value, n)


def test_interval_at_known_values() -> None:
    low, high = fisher(0.0, 103)
    assert high == pytest.approx(math.tanh(1.959964 / 10))
    assert low == -high
    assert fisher(1.0, 50) == (1.0, 1.0)
    assert fisher(0.9, 3) == (-1.0, 1.0)


def test_interval_covers_the_truth_as_often_as_it_says() -> None:
    """Of normal pairs with Pearson 0.8, Spearman's correlation is 6 / pi * asin(0.4)."""
    rng, truth, covered = np.random.default_rng(0), 6 / math.pi * math.asin(0.4), 0
    for _ in range(1000):
        x, noise = rng.normal(size=(2, 60))
        low, high = fisher(spearmanr(x, 0.8 * x + 0.6 * noise).statistic, 60)
        covered += low <= truth <= high
    assert 930 <= covered <= 975
