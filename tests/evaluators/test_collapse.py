import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_zoo.evaluators.collapse import ADVICE, Collapse, CollapseWatch


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def looks(*features: Tensor, last: bool = True) -> Collapse | None:
    """What a watch says at the last of several looks, at steps 0, 10, 20, ..."""
    watch, found = CollapseWatch(), None
    for i, x in enumerate(features):
        found = watch.look(10 * i, x, is_last=last and i == len(features) - 1)
    return found


HEALTHY = torch.randn(100, 16, generator=torch.Generator().manual_seed(1))


def test_healthy_features_say_nothing_whatever_their_scale() -> None:
    assert looks(HEALTHY, HEALTHY, HEALTHY * 1e-4, HEALTHY * 1e4) is None


def test_random_weights_may_be_narrow_and_training_may_widen_them() -> None:
    narrow = torch.ones(100, 16) + 0.05 * torch.randn(100, 16)
    assert looks(narrow, torch.ones(100, 16) + 0.1 * torch.randn(100, 16)) is None


@pytest.mark.parametrize(
    ("x", "what", "measured"),
    [
        (torch.ones(100, 16), "output", "same vector"),
        (torch.zeros(100, 16), "output", "same vector"),
        (torch.ones(100, 16) + 0.01 * HEALTHY, "output", "to a point: feature_std is 0.0"),
        (HEALTHY * (torch.arange(16) < 7), "dimensions", "7 of 16 features vary, 16 earlier"),
        (HEALTHY[:, :2] @ torch.ones(2, 8).cumsum(1).repeat(1, 2), "rank", "directions (rankme)"),
        (HEALTHY / 0, "numbers", "NaN or Inf"),
    ],
)
def test_each_kind_is_told_with_its_measurement_and_what_to_try(x: Tensor, what: str, measured: str) -> None:
    found = looks(HEALTHY, HEALTHY, x, x)
    assert found is not None
    assert found.what == what
    assert measured in str(found)
    assert f"first seen at step 20, not yet at step 10. Try {ADVICE[what]}" in str(found)


def test_one_sign_is_enough_at_the_last_look_only() -> None:
    assert looks(HEALTHY, torch.ones(100, 16), last=False) is None
    found = looks(HEALTHY, torch.ones(100, 16), last=True)
    assert found is not None
    assert (found.since, found.healthy) == (10, 0)


def test_features_that_recover_begin_anew() -> None:
    point = torch.ones(100, 16)
    assert looks(HEALTHY, point, HEALTHY, point, last=False) is None
    found = looks(HEALTHY, point, HEALTHY, point, point, last=False)
    assert found is not None
    assert found.since == 30


def test_the_state_is_plain_and_enough_to_go_on() -> None:
    first, second = CollapseWatch(), CollapseWatch()
    first.look(0, HEALTHY)
    first.look(10, torch.ones(100, 16))
    assert all(type(value) in (int, float) for value in first.state.values())
    second.state = dict(first.state)
    found = second.look(20, torch.ones(100, 16))
    assert found is not None
    assert found.since == 10


@pytest.mark.parametrize("kind", ["simsiam", "no stop-gradient", "attraction only"])
def test_runs_that_collapse_are_found_and_only_they(kind: str) -> None:
    """Three runs of a small SimSiam: without stop-gradient a BatchNorm keeps the deviation up, not the rank."""
    centres = torch.randn(8, 32)

    def examples(count: int) -> Tensor:
        return centres[torch.randint(8, (count,))] + 0.7 * torch.randn(count, 32)

    layers = [nn.Linear(32, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 64), nn.BatchNorm1d(64), nn.ReLU()]
    encoder = nn.Sequential(*layers, nn.Linear(64, 16))
    if kind != "attraction only":
        encoder.append(nn.BatchNorm1d(16, affine=False))
    predictor = nn.Sequential(nn.Linear(16, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 16))
    optimizer = torch.optim.SGD([*encoder.parameters(), *predictor.parameters()], lr=0.05, momentum=0.9)
    watch, held = CollapseWatch(), examples(256)

    def look(step: int) -> Collapse | None:
        encoder.eval()
        with torch.no_grad():
            found = watch.look(step, encoder(held), is_last=step == 200)
        encoder.train()
        return found

    found = look(0)
    for step in range(1, 201):
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
        if step % 20 == 0:
            found = look(step)
    what = {"simsiam": None, "no stop-gradient": "rank", "attraction only": "output"}[kind]
    assert (found.what if found else None) == what
