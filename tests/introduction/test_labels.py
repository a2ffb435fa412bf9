"""Points of the curves: their order, their intervals, and what the figure needs."""

import math

import pytest
from scipy import stats

from ssl_zoo.introduction.labels import curve, draw_labels, interval_of_mean
from tests.introduction.test_figure import opened

METRICS = {
    f"few/{n}/{name}{end}": value
    for name, best in (("linear", 0.95), ("scratch", 0.9), ("pixels_linear", 0.8))
    for n, loss in ((10, 0.02), (1, 0.3), (2, 0.2))
    for end, value in (("", best - loss), ("_std", loss / 10))
} | {"few/all/linear": 0.99, "few/all/scratch": 0.97, "few/all/pixels_linear": 0.95, "few/1/linear_std2": 1.0}


def test_points_are_in_the_order_of_the_labels() -> None:
    points = curve(METRICS, "linear", draws=5, all_labels=139.7)
    assert [(point.labels, round(point.mean, 6)) for point in points] == [
        (1, 0.65),
        (2, 0.75),
        (10, 0.93),
        (139.7, 0.99),
    ]
    assert all(0 < point.low < point.mean < point.high < 1 for point in points[:-1])
    assert points[-1].low == points[-1].high == 0.99  # one draw has no interval


@pytest.mark.parametrize(("mean", "deviation", "draws"), [(0.65, 0.04, 5), (0.985, 0.01, 3), (0.02, 0.03, 2)])
def test_intervals_are_students_on_the_logit_scale(mean: float, deviation: float, draws: int) -> None:
    low, high = interval_of_mean(mean, deviation, draws)
    assert 0 < low < mean < high < 1
    half = stats.t.ppf(0.975, draws - 1) * deviation / math.sqrt(draws)
    logit = math.log(mean / (1 - mean))
    assert math.log(high / (1 - high)) - logit == pytest.approx(half / (mean * (1 - mean)))
    assert logit - math.log(low / (1 - low)) == pytest.approx(half / (mean * (1 - mean)))


def test_narrow_intervals_are_the_plain_ones() -> None:
    low, high = interval_of_mean(0.7, 0.001, 5)
    half = stats.t.ppf(0.975, 4) * 0.001 / math.sqrt(5)
    assert (low, high) == pytest.approx((0.7 - half, 0.7 + half), abs=1e-5)


@pytest.mark.parametrize(("mean", "deviation"), [(1.0, 0.0), (0.0, 0.0), (0.8, 0.0), (1.0, 0.01)])
def test_no_spread_has_no_interval(mean: float, deviation: float) -> None:
    assert interval_of_mean(mean, deviation, 3) == (mean, mean)


def test_the_figure_is_drawn(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    assert min(opened(draw_labels(METRICS, 5, 3, num_train=1397, num_classes=10)).size) > 500
    assert "1: 65.0 (" in caplog.text
    assert "140: 99.0" in caplog.text
