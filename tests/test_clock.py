"""Training time: over sessions, without pauses."""

import math
from types import SimpleNamespace

import pytest

from ssl_zoo.clock import Clock


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """What the time is; tests move it."""
    at = SimpleNamespace(seconds=100.0)
    monkeypatch.setattr("ssl_zoo.clock.time.perf_counter", lambda: at.seconds)
    monkeypatch.setattr("ssl_zoo.clock.time.time", lambda: 1e9 + at.seconds)
    return at


def test_pauses_and_the_first_step_do_not_count(at: SimpleNamespace) -> None:
    pause = SimpleNamespace(seconds=0.0)
    clock = Clock([pause])
    clock.earlier = 50.0
    assert clock.seconds == 50
    at.seconds += 7  # before training starts
    clock.start()
    at.seconds += 10
    clock.step(batches=4)
    assert clock.first_step_at == 1e9 + 117
    at.seconds += 30
    pause.seconds = 10.0
    clock.step(batches=14)
    assert clock.seconds == 50 + 10 + 30 - 10
    assert clock.batches_per_second(14) == 10 / 20


def test_no_speed_before_the_second_step(at: SimpleNamespace) -> None:
    clock = Clock()
    assert math.isnan(clock.batches_per_second(0))
    clock.start()
    assert not clock.has_stepped
    clock.step(batches=3)
    assert clock.has_stepped
    assert math.isnan(clock.batches_per_second(3))
