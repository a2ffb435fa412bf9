import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_zoo.evaluators.base import warn_once
from ssl_zoo.evaluators.spread import Spread, feature_std, rankme
from tests.evaluators.fakes import FakeData, judge


@pytest.fixture(autouse=True)
def _forget_what_was_said() -> None:
    warn_once.cache_clear()
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


def test_both_are_reported_without_labels_and_healthy_features_say_nothing(caplog: pytest.LogCaptureFixture) -> None:
    spread = Spread(samples=1000)
    x = torch.randn(3000, 16)
    found = seen(x, spread)
    assert found == {"rankme": pytest.approx(16, rel=0.02), "feature_std": pytest.approx(1, rel=0.02)}
    assert found == seen(x, Spread(samples=1000)), "the sample is fixed"
    assert not caplog.messages


def test_collapse_to_a_point_is_said_in_one_line(caplog: pytest.LogCaptureFixture) -> None:
    seen(torch.ones(100, 16) + 0.01 * torch.randn(100, 16), Spread(1000))
    (line,) = caplog.messages
    assert line.startswith("warning: the features have collapsed to a point")


def test_loss_of_directions_is_said_in_one_line(caplog: pytest.LogCaptureFixture) -> None:
    spread = Spread(1000)
    seen(torch.randn(500, 16), spread, "init")
    seen(torch.randn(500, 2) @ torch.randn(2, 16), spread)
    (line,) = caplog.messages
    assert line.startswith("warning: the features are collapsing: they use ")


def test_random_weights_may_be_narrow_and_training_may_widen_them(caplog: pytest.LogCaptureFixture) -> None:
    spread = Spread(1000)
    seen(torch.ones(100, 16) + 0.05 * torch.randn(100, 16), spread, "init")
    seen(torch.ones(100, 16) + 0.1 * torch.randn(100, 16), spread)
    assert not caplog.messages


@pytest.mark.parametrize("kind", ["simsiam", "no stop-gradient", "attraction only"])
def test_warns_of_runs_that_collapse_and_only_of_them(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    """The three runs of a small SimSiam: without stop-gradient a BatchNorm keeps the deviation up, not the rank."""
    torch.manual_seed(0)
    centres = torch.randn(8, 32)

    def examples(count: int) -> Tensor:
        return centres[torch.randint(8, (count,))] + 0.7 * torch.randn(count, 32)

    layers = [nn.Linear(32, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 64), nn.BatchNorm1d(64), nn.ReLU()]
    encoder = nn.Sequential(*layers, nn.Linear(64, 16))
    if kind != "attraction only":
        encoder.append(nn.BatchNorm1d(16, affine=False))
    predictor = nn.Sequential(nn.Linear(16, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 16))
    optimizer = torch.optim.SGD([*encoder.parameters(), *predictor.parameters()], lr=0.05, momentum=0.9)
    spread, held = Spread(1000), examples(1000)

    def look(phase: str) -> None:
        encoder.eval()
        with torch.no_grad():
            seen(encoder(held), spread, phase)
        encoder.train()

    look("init")
    for _ in range(200):
        x = examples(256)
        a, b = (encoder(x + 0.5 * torch.randn_like(x)) for _ in range(2))
        if kind == "attraction only":
            loss = -F.cosine_similarity(a, b).mean()
        else:
            ta, tb = (a.detach(), b.detach()) if kind == "simsiam" else (a, b)
            loss = -(F.cosine_similarity(predictor(a), tb) + F.cosine_similarity(predictor(b), ta)).mean() / 2
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    look("final")
    assert ("warning" in caplog.text) == (kind != "simsiam")


def test_too_few_samples_are_refused() -> None:
    with pytest.raises(ValueError, match=r"spread\.samples=1"):
        Spread(samples=1)
