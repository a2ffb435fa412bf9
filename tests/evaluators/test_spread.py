import math

import pytest
import torch
from torch import Tensor

from ssl_zoo.evaluators.spread import Spread, feature_std, rankme
from tests.evaluators.fakes import FakeData, judge


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def seen(x: Tensor, spread: Spread, phase: str = "final") -> dict[str, float]:
    y = torch.full((len(x),), -1)
    return spread(judge(FakeData((x, y), (x[:0], y[:0]), has_labels=False), phase))


def test_isotropic_features_fill_the_space() -> None:
    x = torch.randn(20_000, 32)
    assert rankme(x) == pytest.approx(32, rel=0.01)
    assert feature_std(x) == pytest.approx(1, rel=0.01)


def test_rank_of_known_spectra() -> None:
    assert rankme(torch.eye(7)) == pytest.approx(7)
    basis = torch.linalg.qr(torch.randn(100, 2)).Q
    assert rankme(basis @ torch.randn(2, 2) @ torch.zeros(2, 9)) == 1  # all zero: no division by nothing
    assert rankme(torch.outer(torch.randn(50), torch.randn(9))) == pytest.approx(1, abs=1e-3)
    two = basis @ torch.linalg.qr(torch.randn(9, 9)).Q[:2]
    assert rankme(two) == pytest.approx(2, abs=1e-3)
    sigma = torch.tensor([3.0, 1.0])
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert rankme((basis * sigma) @ torch.linalg.qr(torch.randn(9, 9)).Q[:2]) == pytest.approx(
        math.exp(entropy), abs=1e-3
    )


@pytest.mark.parametrize("shape", [(300, 20), (20, 300)])
def test_rank_equals_the_formula_on_singular_values(shape: tuple[int, int]) -> None:
    x = torch.randn(shape) + 2
    sigma = torch.linalg.svdvals(x.double())
    p = sigma / sigma.sum()
    assert rankme(x) == pytest.approx(torch.exp(-(p * p.log()).sum()).item(), rel=1e-6)


def test_rank_knows_no_scale_and_no_order() -> None:
    x = torch.randn(200, 10) * torch.logspace(0, -2, 10)
    assert rankme(x * 1e-4) == pytest.approx(rankme(x), rel=1e-5)
    assert rankme(x[torch.randperm(200)]) == pytest.approx(rankme(x), rel=1e-6)


def test_std_of_a_point_is_zero_and_scale_does_not_matter() -> None:
    assert feature_std(torch.ones(50, 8)) == pytest.approx(0, abs=1e-6)
    x = torch.randn(500, 8)
    assert feature_std(x * 1000) == pytest.approx(feature_std(x), rel=1e-5)


def test_both_are_reported_without_labels() -> None:
    spread = Spread(samples=1000)
    x = torch.randn(3000, 16)
    found = seen(x, spread)
    assert found == {"rankme": pytest.approx(16, rel=0.02), "feature_std": pytest.approx(1, rel=0.02)}
    assert found == seen(x, Spread(samples=1000)), "the sample is fixed"


def test_too_few_samples_are_refused() -> None:
    with pytest.raises(ValueError, match=r"spread\.samples=1"):
        Spread(samples=1)
