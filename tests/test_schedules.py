"""Schedules of rates and decays as functions of progress."""

import pytest

from ssl_zoo import schedules
from ssl_zoo.schedules import cosine_schedule, warmup_cosine, warmup_linear


def test_schedules() -> None:
    assert cosine_schedule(0.99, 1.0, 0.0) == pytest.approx(0.99)
    assert cosine_schedule(0.99, 1.0, 0.5) == pytest.approx(0.995)
    assert cosine_schedule(0.99, 1.0, 1.0) == 1.0
    assert [warmup_cosine(p, 0.1, 0.0) for p in (0, 0.05, 0.1, 0.55, 1)] == pytest.approx([0, 0.5, 1, 0.5, 0])
    assert [warmup_linear(p, 0.1, 0.5) for p in (0, 0.05, 0.1, 0.3, 0.75, 1)] == pytest.approx([0, 0.5, 1, 1, 0.5, 0])
    assert warmup_cosine(0.0, 0.0, 0.0) == 1.0


def test_a_linear_warmup_is_linear_and_then_flat() -> None:
    assert [schedules.linear_warmup(0.04, 0.07, 0.3, p) for p in (0, 0.1, 0.3, 0.9)] == pytest.approx(
        [0.04, 0.05, 0.07, 0.07]
    )
    assert schedules.linear_warmup(0.04, 0.07, 0.0, 0.0) == pytest.approx(0.07)  # none
