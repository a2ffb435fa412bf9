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
from ssl_zoo.report.results import BUDGET_KINDS


@dataclass(frozen=True)
class Budget:
    """A resolved budget.

    Attributes:
        kind: one of `BUDGET_KINDS`.
        value: the value in the configuration.
        steps: number of optimizer steps, None for a budget in minutes.
        minutes: training time, None for every other kind.
    """

    kind: str
    value: float
    steps: int | None
    minutes: float | None

    def __str__(self) -> str:
        return f"{self.value:g} {self.kind}" + (f" = {self.steps} steps" if self.steps and self.kind != "steps" else "")


def chosen_budget(budget: Mapping[str, float | None]) -> tuple[str, float]:
    """Returns the kind of budget that is set and its value.

    Raises:
        ValueError: if not exactly one kind is set, or its value is not a positive number.
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
    """Converts `budget.<kind>=<value>` to optimizer steps, except for a budget in minutes.

    Args:
        budget: the value of each kind, None for those not set.
        steps_per_epoch: full batches per epoch divided by batches per optimizer step; not always a whole number.
        examples_per_step: examples in one optimizer step over all processes.
        flops_per_step: training FLOPs of one optimizer step over all processes.

    Raises:
        ValueError: see `chosen_budget`.
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
    """Counts the FLOPs of one forward and backward pass, per example.

    Counts matrix products and convolutions, with a multiply-add as two operations. Because only `examples` of the
    batch are used, terms that are quadratic in the batch size (similarity matrices) are negligible, as is common
    practice. Runs on a copy of `method`; weights, buffers and random state are unchanged.
    """
    count = min(examples, len(batch.labels))
    subset = Batch([view[:count] for view in batch.views], batch.labels[:count], batch.indices[:count])
    with torch.random.fork_rng(), FlopCounterMode(display=False) as counter:
        copy.deepcopy(method).train()(subset, 0.0)["loss"].backward()
    total: int = counter.get_total_flops()
    return total / count


def flops_per_example(method: Method, data: DataModule, raw: Any) -> float:
    """Counts the training FLOPs per example on `raw`, a batch as the loader returns it; see `count_flops`."""
    return count_flops(method, data.on_after_batch_transfer(raw, 0))
