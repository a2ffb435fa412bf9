"""The estimate is that of the work there is, and leaves no trace."""

import time
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ssl_zoo.method import Batch, Method
from ssl_zoo.training import estimate


class Slow(Method):
    """A step takes a second per hundred examples, by the clock that the test turns."""

    sizes: list[int] = []  # noqa: RUF012 - of all copies
    clock = 0.0

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        Slow.sizes.append(len(batch.labels))
        Slow.clock += len(batch.labels) / 100
        return {"loss": self.backbone(batch.views[0]).sum() * torch.rand(())}


class Data:
    def transfer_batch_to_device(self, raw: Batch, device: torch.device, index: int) -> Batch:
        return raw

    def on_after_batch_transfer(self, raw: Batch, index: int) -> Batch:
        Slow.clock += len(raw.labels) / 1000
        return raw


@pytest.mark.parametrize(
    ("count", "share", "sizes"), [(512, 512, [8, 8, 32, 32, 128]), (20, 20, [8, 8, 20, 20]), (64, 4, [4, 4])]
)
def test_seconds_of_views_and_step(count: int, share: int, sizes: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "perf_counter", lambda: Slow.clock)
    Slow.sizes.clear()
    method, labels = Slow(nn.Linear(3, 2)), torch.zeros(count, dtype=torch.int64)
    weight, state = method.backbone.weight.clone(), torch.get_rng_state()  # type: ignore[union-attr, operator]
    raw: Any = Batch([torch.randn(count, 3)], labels, labels)
    state = torch.get_rng_state()
    found = estimate.seconds_per_example(method, Data(), raw, share, torch.device("cpu"), nullcontext)
    assert found == pytest.approx(0.001 + 0.01)
    assert Slow.sizes == sizes  # no more once a pass takes long enough
    assert torch.equal(method.backbone.weight, weight)  # type: ignore[arg-type]
    assert method.backbone.weight.grad is None  # type: ignore[union-attr]
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.04, "0.04 s"),
        (40.2, "40 s"),
        (89, "89 s"),
        (91, "1.5 min"),
        (754, "13 min"),
        (7200, "2 h"),
        (400_000, "4.6 days"),
    ],
)
def test_a_duration_in_words(seconds: float, words: str) -> None:
    assert estimate.format_duration(seconds) == words
