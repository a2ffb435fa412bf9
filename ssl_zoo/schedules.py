"""Functions of a run's progress in [0, 1]."""

import math


def cosine_schedule(start: float, end: float, progress: float) -> float:
    """Half-cosine from `start` at progress 0 to `end` at progress 1."""
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * progress))


def linear_ramp(start: float, end: float, share: float, progress: float) -> float:
    """Linear from `start` to `end` over the first `share` of the run, then `end`."""
    return start + (end - start) * min(progress / share, 1.0)


def warmup_cosine(progress: float, warmup: float, final: float) -> float:
    """Learning-rate factor: linear from 0 over the first `warmup` of the run, then half-cosine from 1 to `final`.

    Raises: ValueError unless 0 <= warmup < 1 and final >= 0."""
    if not (0 <= warmup < 1 and final >= 0):
        raise ValueError(f"schedule.warmup={warmup}, final={final}: give a share of the run below 1, and 0 or more")
    if progress < warmup:
        return progress / warmup
    return cosine_schedule(1.0, final, (progress - warmup) / (1 - warmup))


def warmup_linear(progress: float, warmup: float, flat: float) -> float:
    """Learning-rate factor: linear from 0 over `warmup`, 1 until `flat` of the run is spent, then linear to 0.

    Raises: ValueError unless 0 <= warmup <= flat < 1."""
    if not 0 <= warmup <= flat < 1:
        raise ValueError(f"schedule.warmup={warmup}, flat={flat}: give shares of the run below 1, warmup no later")
    if progress < warmup:
        return progress / warmup
    return 1.0 if progress < flat else (1 - progress) / (1 - flat)
