"""The budget of a run, given as exactly one of epochs, steps, examples, training FLOPs or minutes."""

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeCopyMode,
    FakeTensorMode,
    UnsupportedOperatorException,
)
from torch.utils._pytree import tree_map_only
from torch.utils.flop_counter import FlopCounterMode

from ssl_zoo.data.base import DataModule
from ssl_zoo.method import Batch, Method
from ssl_zoo.report.results import BUDGET_KINDS

VALUES_NEEDED = (DataDependentOutputException, DynamicOutputShapeException, UnsupportedOperatorException)
"""What an operation on fake tensors raises when its result depends on values, or when it has no rule for shapes."""


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


def count_flops(method: Method, batch: Batch) -> float:
    """Counts the FLOPs of one forward and backward pass, per example, from the shapes of `batch`.

    Nothing is computed: the pass runs on fake tensors, which have a shape but no values. If a shape depends on values
    (the random size of I-JEPA's blocks, the number of examples that DeepCluster clusters), a copy of `method` runs on
    the batch itself. Weights, buffers and random state are unchanged.

    Counts matrix products and convolutions, with a multiply-add as two operations; what checkpointing recomputes is not
    counted. In a batch of a few examples, terms
    that are quadratic in the batch size (similarity matrices) are negligible, as is common practice.
    """
    try:
        total = _fake_pass(method, batch)
    except VALUES_NEEDED:
        total = _real_pass(method, batch)
    return total / len(batch.labels)


def _fake_pass(method: Method, batch: Batch) -> int:
    fake_mode = FakeTensorMode(allow_non_fake_inputs=True)
    with FakeCopyMode(fake_mode):
        method, batch = _copy(method), copy.deepcopy(batch)
    with fake_mode, FlopCounterMode(display=False) as counter:
        method.train()(batch, 0.0)["loss"].backward()
    return int(counter.get_total_flops())


def _real_pass(method: Method, batch: Batch) -> int:
    with torch.random.fork_rng(), FlopCounterMode(display=False) as counter:
        _copy(method).train()(batch, 0.0)["loss"].backward()
    return int(counter.get_total_flops())


def _copy(method: Method) -> Method:
    """A copy that recomputes nothing."""
    copied = copy.deepcopy(method)
    for module in copied.modules():
        for name in vars(module).keys() & {"grad_checkpointing", "gradient_checkpointing"}:  # timm's, transformers'
            setattr(module, name, False)
    return copied


def flops_per_example(method: Method, data: DataModule, raw: Any, examples: int = 8) -> float:
    """Counts the training FLOPs per example on the first of `raw`, a batch as the loader returns it; see `count_flops`.

    Only these examples are made into views.
    """
    return count_flops(method, first_views(data, raw, examples))


def first_views(data: DataModule, raw: Any, examples: int = 8) -> Batch:
    """The views of the first examples of `raw`, a batch as the loader returns it."""
    first: Any = tree_map_only(Tensor, lambda rows: rows[:examples], raw)
    return data.on_after_batch_transfer(first, 0)
