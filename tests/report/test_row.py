"""How a row's cells are written; `test_comparison.py` has what they are computed from."""

import pytest

from ssl_zoo.report.estimate import Estimate
from ssl_zoo.report.row import ComparisonRow


def row(**estimates: tuple[float, ...]) -> ComparisonRow:
    found = {key.replace("_", "/"): Estimate(values, 400) for key, values in estimates.items()}
    return ComparisonRow({}, (0, 1, 2), found, {}, ())


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ((0.80, 0.81, 0.82), "81.0 (78.4 to 83.4)"),
        ((0.80, 0.801, 0.802), "80.1 ± 0.2"),
        ((0.977, 0.985), "98.1 (77.2 to 99.9) (n=2)"),
        ((0.98, 0.98, 0.98), "98.0 (96.1 to 99.0)"),
        ((0.8,), "80.0 (75.8 to 83.6) (n=1)"),
    ],
)
def test_accuracies_have_intervals_within_0_and_100(values: tuple[float, ...], text: str) -> None:
    assert row(knn_top1=values).cell("knn/top1") == text


def test_costs_have_none() -> None:
    costs = row(seconds=(10.0, 20.0, 30.0), flops=(1.5e15, 1.5e15, 1.5e15), examples=(1e6, 1e6, 1e6))
    assert [costs.cell(key) for key in ("seconds", "flops", "examples", "x")] == ["20", "1.5e+15", "1,000,000", ""]
