"""Settings picked from what the data is, where the user gave none: pure functions of a few numbers.

They depend on the data and on whether there is a GPU, and on nothing random or timed, so that all processes and all
seeds of a run pick the same.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

AUTO = "auto"
"""The value of a setting that is left to these functions."""
SIDES = (32, 64, 96, 128, 224)
"""Sides of images to pick from; smaller images keep their own."""
CPU_SIDES = {2_000: 128, math.inf: 96}
"""Largest side on a CPU, by the maximum number of images: a ResNet costs half as much at 96 as at 128 pixels."""
MIN_BATCH = 16
"""Smallest batch to pick: losses that contrast examples, and BatchNorm, need several."""
STEPS_PER_EPOCH = 20
"""Steps per epoch that the batch size leaves to small data."""
EPOCHS = 30
"""As in conf/config.yaml."""
MIN_STEPS = 1000
"""Optimizer steps of a run on small data, which 30 epochs would not make."""
MOST_STEPS = 10_000
"""Steps of a run on data of unknown size."""
FLOP_LIMIT = {"cpu": 2e14, "cuda": 2e18}
"""Training FLOPs that a run may take, by device: about an hour on two to four cores, some hours on a fast GPU."""


class Pick(NamedTuple):
    """A setting that was picked.

    Attributes:
        key: with a dot, such as "data.image_size".
        value: of it.
        why: the reason, for the user.
    """

    key: str
    value: Any
    why: str

    def __str__(self) -> str:
        value = self.value
        if isinstance(value, list):
            value = "[" + ",".join(f"{item:g}" for item in value) + "]"
        return f"{self.key}={'null' if value is None else value}"


class Findings(NamedTuple):
    """What a survey of a data set found.

    Attributes:
        lines: what is there, (title, text) each.
        picks: those settings that were left to pick.
        problems: what a run would stop at, with the remedy.
        num_train: training examples.
        is_exact: whether `num_train` counts all of them; else it is a lower bound.
    """

    lines: list[tuple[str, str]]
    picks: list[Pick]
    problems: list[str]
    num_train: int
    is_exact: bool = True


def format_lines(lines: list[tuple[str, str]]) -> list[str]:
    """Aligns (title, text) pairs in two columns."""
    width = max((len(title) for title, _ in lines), default=0)
    return [f"{title:<{width}}  {text}" for title, text in lines]


def format_picks(picks: list[Pick]) -> list[str]:
    """One aligned line per pick, with the reason and the key that overrides it."""
    return format_lines([(str(pick), f"({pick.why}; {pick.key}=...)") for pick in picks])


def pick_image_size(median: int, count: int, on_gpu: bool) -> Pick:
    """The side of the views.

    Args:
        median: of the shorter sides of the images, in pixels.
        count: of the training images.
        on_gpu: whether there is a GPU.
    """
    why = f"median shorter side {median:,}, {count:,} images"
    if median <= SIDES[0]:
        return Pick("data.image_size", median, why)
    limit = SIDES[-1] if on_gpu else next(side for most, side in CPU_SIDES.items() if count <= most)
    size = max(side for side in SIDES if side <= min(median, limit))
    if min(median, SIDES[-1]) > limit:
        why += f"; no more than {limit} on a CPU"
    return Pick("data.image_size", size, why)


def pick_batch_size(count: int, largest: int = 256, what: str = "images") -> Pick:
    """The batch size: a power of two, from `MIN_BATCH` to `largest` for `STEPS_PER_EPOCH`, and never above `count`.

    Args:
        count: training examples.
        largest: maximum.
        what: the examples are called.
    """
    wanted = min(max(count // STEPS_PER_EPOCH, MIN_BATCH), largest, count)
    size = 2 ** int(math.log2(max(wanted, 1)))
    return Pick("data.batch_size", size, f"{count:,} {what} to train on")


def pick_budget(count: int, batch_size: int, flops: float, device: str, is_exact: bool = True) -> Pick:
    """Epochs, or steps where an epoch is too long or its length is not known.

    Args:
        count: training examples; a lower bound unless `is_exact`.
        batch_size: examples per step.
        flops: training FLOPs per example.
        device: "cpu" or "cuda".
        is_exact: whether `count` is the number of them.
    """
    affordable = max(1, int(FLOP_LIMIT[device] / flops / batch_size))  # steps
    per_epoch = max(count // batch_size, 1)
    each = f"{flops / 1e9:.2g} GFLOP per example"
    if not is_exact:
        return Pick("budget.steps", min(affordable, MOST_STEPS), f"not all examples were counted, {each}")
    if affordable < per_epoch:
        return Pick("budget.steps", affordable, f"{affordable / per_epoch:.0%} of an epoch, {each}")
    wanted = max(EPOCHS, math.ceil(MIN_STEPS / per_epoch))
    epochs = min(wanted, affordable // per_epoch)
    shortened = f"; {wanted} would take long" if epochs < wanted else ""
    return Pick("budget.epochs", epochs, f"{per_epoch:,} steps per epoch, {each}{shortened}")


def is_open(settings: Mapping[str, Any], key: str) -> bool:
    """Whether a setting is left to pick."""
    return bool(settings.get(key) == AUTO)
