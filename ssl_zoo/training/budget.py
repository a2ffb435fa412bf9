"""The budget of a run, given as exactly one of epochs, steps, examples, training FLOPs or minutes."""

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from ssl_zoo.data.base import DataModule
from ssl_zoo.method import Batch, Method

BUDGET_KINDS = ("epochs", "steps", "examples", "flops", "minutes")


@dataclass(frozen=True)
class Budget:
    """steps: optimizer steps, None when the budget is time; minutes: None unless the budget is time."""

    kind: str
    value: float
    steps: int | None
    minutes: float | None

    def __str__(self) -> str:
        return f"{self.value:g} {self.kind}" + (f" = {self.steps} steps" if self.steps and self.kind != "steps" else "")


def chosen_budget(budget: Mapping[str, float | None]) -> tuple[str, float]:
    """The kind of budget and its value.

    Raises:
        ValueError: naming the key when none or several kinds are given, or the value is no positive number.
    """
    given = {kind: value for kind, value in budget.items() if value is not None}
    if len(given) != 1 or given.keys() - set(BUDGET_KINDS):
        names = ", ".join(f"budget.{kind}={value}" for kind, value in given.items()) or "none"
        raise ValueError(
            f"budget: exactly one of {', '.join(BUDGET_KINDS)} must be set, not {names}; "
            "set the others to null, e.g. budget.epochs=null budget.steps=1000"
        )
    ((kind, value),) = given.items()
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise ValueError(f"budget.{kind}={value} must be a positive number")
    return kind, value


def resolve_budget(
    budget: Mapping[str, float | None], steps_per_epoch: Fraction, examples_per_step: int, flops_per_step: float
) -> Budget:
    """Turns `budget.<kind>=<value>` into optimizer steps; everything but minutes is known at start.

    An epoch is every full batch once, no whole number of steps where gradients of several batches make one.
    Raises: ValueError as `chosen_budget`.
    """
    kind, value = chosen_budget(budget)
    if kind == "minutes":
        return Budget(kind, value, None, float(value))
    steps = {
        "epochs": value * steps_per_epoch,
        "steps": value,
        "examples": value / examples_per_step,
        "flops": value / flops_per_step,
    }[kind]
    return Budget(kind, value, max(1, math.ceil(steps)), None)


def count_flops(method: Method, batch: Batch, examples: int = 8) -> float:
    """Training FLOPs of one example: forward and backward, two for a multiply-add, matrix products and convolutions.

    Measured on a copy of `method` with the first `examples` of `batch`; leaves weights, buffers and RNG state alone.
    Terms that grow with the square of the batch (similarity matrices) are left out, as is the usual practice.
    """
    count = min(examples, len(batch.labels))
    part = Batch([view[:count] for view in batch.views], batch.labels[:count], batch.indices[:count])
    with torch.random.fork_rng(), FlopCounterMode(display=False) as counter:
        copy.deepcopy(method).train()(part, 0.0)["loss"].backward()
    total: int = counter.get_total_flops()
    return total / count


def flops_per_example(method: Method, data: DataModule, raw: Any) -> float:
    """Training FLOPs of one example, counted on `raw`, a batch as the loader gives it (see `budget.count_flops`)."""
    return count_flops(method, data.on_after_batch_transfer(raw, 0))
