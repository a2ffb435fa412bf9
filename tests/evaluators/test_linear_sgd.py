from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_zoo.data.order import epoch_order
from ssl_zoo.evaluators.base import warn_once
from ssl_zoo.evaluators.linear_sgd import LinearSGD, fit_by_sgd, rate_factor
from tests.evaluators.fakes import FakeData, blobs, judge

SETTINGS: dict[str, Any] = {
    "lr": [0.01, 0.1, 1], "epochs": 10, "batch_size": 32, "momentum": 0.9, "schedule": "step", "validation": 0.2,
}  # fmt: skip


def naive(x: Tensor, y: Tensor, rate: float, epochs: int, schedule: str) -> nn.Linear:
    """One classifier by torch's SGD and a scheduler, in the same order from the same start."""
    head = nn.Linear(x.shape[1], int(y.max()) + 1)
    nn.init.zeros_(head.bias)
    with torch.no_grad():
        head.weight.copy_(0.01 * torch.randn(head.weight.shape, generator=torch.Generator().manual_seed(0)))
    optimizer = torch.optim.SGD(head.parameters(), lr=rate, momentum=0.9)
    if schedule == "step":
        scheduler: Any = torch.optim.lr_scheduler.MultiStepLR(optimizer, [int(0.6 * epochs), int(0.8 * epochs)])
    else:
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    for epoch in range(epochs):
        for rows in torch.from_numpy(epoch_order(len(x), 0, epoch)).split(32):
            optimizer.zero_grad()
            F.cross_entropy(head(x[rows]), y[rows]).backward()
            optimizer.step()
        scheduler.step()
    return head


@pytest.mark.parametrize("schedule", ["step", "cosine"])
def test_each_rate_is_torchs_sgd_at_that_rate(schedule: str) -> None:
    x, y = blobs(70, 6, 3, 0.5)  # 32, 32 and 6 examples
    probes = fit_by_sgd(x, y, [0.01, 0.5], 10, 32, 0.9, schedule)
    for rate, probe in zip([0.01, 0.5], probes, strict=True):
        head = naive(x, y, rate, 10, schedule)
        assert torch.allclose(probe.weight, head.weight, atol=1e-4)
        assert torch.allclose(probe.bias, head.bias, atol=1e-4)


def test_the_rate_falls_after_60_and_80_percent() -> None:
    assert [rate_factor("step", epoch / 100) for epoch in (0, 59, 60, 79, 80, 99)] == [1, 1, 0.1, 0.1, 0.01, 0.01]
    assert rate_factor("cosine", 0.5) == pytest.approx(0.5)


def test_a_rate_that_diverges_does_not_disturb_the_others() -> None:
    x, y = blobs(60, 4, 3, 2)
    (alone,) = fit_by_sgd(x, y, [0.1], 5, 32, 0.9, "step")
    beside, diverged = fit_by_sgd(x, y, [0.1, 1e38], 5, 32, 0.9, "step")
    assert torch.allclose(alone.weight, beside.weight, atol=1e-5)
    assert not diverged.weight.isfinite().all()
    assert LinearSGD(**SETTINGS | {"lr": [0.1, 1e38]}).choose(x, y) == 0.1
    with pytest.raises(FloatingPointError, match="diverges"):
        LinearSGD(**SETTINGS | {"lr": [1e38]}).choose(x, y)


def test_separable_classes_are_told_apart_and_labels_need_not_be_consecutive() -> None:
    (x, y), (z, truth) = blobs(90, 8, 3, 3), blobs(60, 8, 3, 3, seed=1)
    found = LinearSGD(**SETTINGS)(judge(FakeData((x, 5 * y), (z, 5 * truth))))
    assert found["linear_sgd/top1"] == 1
    assert found["linear_sgd/lr"] in SETTINGS["lr"]


def test_the_rate_does_not_depend_on_the_test_split(caplog: pytest.LogCaptureFixture) -> None:
    warn_once.cache_clear()
    (x, y), (z, truth) = blobs(60, 8, 3, 0.4), blobs(90, 8, 3, 0.4, seed=1)
    rates = [
        LinearSGD(**SETTINGS)(judge(FakeData((x, y), (z, labels))))["linear_sgd/lr"]
        for labels in (truth, truth.roll(1), truth * 0)
    ]
    assert len(set(rates)) == 1
    assert ("extend the list" in caplog.text) == (rates[0] in (0.01, 1))


def test_it_is_left_out_during_training() -> None:
    x, y = blobs(30, 4, 3, 3)
    assert LinearSGD(**SETTINGS)(judge(FakeData((x, y), (x, y)), "periodic")) == {}


@pytest.mark.parametrize(
    ("key", "value"),
    [("lr", []), ("lr", [0]), ("lr", [1, 1]), ("epochs", 0), ("momentum", 1), ("schedule", "x"), ("validation", 1)],
)
def test_settings_outside_their_range_are_refused(key: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"evaluators\.linear_sgd\.{key}"):
        LinearSGD(**SETTINGS | {key: value})
