"""Schedules: functions of a run's progress, which goes from 0 to 1."""

import math


def cosine_schedule(start: float, end: float, progress: float) -> float:
    """Half-cosine from `start` at progress 0 to `end` at progress 1."""
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * progress))


def linear_warmup(start: float, end: float, warmup: float, progress: float) -> float:
    """Linear from `start` to `end` over the first share `warmup` of the run, then constant."""
    return start + (end - start) * (min(progress / warmup, 1.0) if warmup else 1.0)


def warmup_cosine(progress: float, warmup: float, final: float) -> float:
    """Learning-rate factor: linear warmup from 0 to 1, then half-cosine from 1 to `final`.

    Args:
        progress: elapsed fraction of the run.
        warmup: fraction of the run at which the warmup ends.
        final: factor at the end of the run.

    Raises:
        ValueError: unless 0 <= warmup < 1 and final >= 0.
    """
    if not (0 <= warmup < 1 and final >= 0):
        raise ValueError(f"schedule.warmup={warmup}, final={final}: give a share of the run below 1, and 0 or more")
    if progress < warmup:
        return progress / warmup
    return cosine_schedule(1.0, final, (progress - warmup) / (1 - warmup))


def warmup_linear(progress: float, warmup: float, flat: float) -> float:
    """Learning-rate factor: linear warmup from 0 to 1, constant, then linear decay to 0.

    Args:
        progress: elapsed fraction of the run.
        warmup: fraction of the run at which the warmup ends.
        flat: fraction of the run at which the decay begins.

    Raises:
        ValueError: unless 0 <= warmup <= flat < 1.
    """
    if not 0 <= warmup <= flat < 1:
        raise ValueError(f"schedule.warmup={warmup}, flat={flat}: give shares of the run below 1, warmup no later")
    if progress < warmup:
        return progress / warmup
    return 1.0 if progress < flat else (1 - progress) / (1 - flat)
