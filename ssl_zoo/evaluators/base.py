"""What evaluators judge: the frozen encoder, through its features of the training and the test part of the data."""

import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache, cached_property
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from ssl_zoo.method import Batch, Method


class Features(NamedTuple):
    """N examples of one part of the data, in the order of their indices, on the CPU.

    x: (N, D) float32, what the encoder says of each; y: (N,) int64, their labels, -1 where unknown;
    indices: (N,) int64, the position of each in its data set.
    """

    x: Tensor
    y: Tensor
    indices: Tensor


class Data(Protocol):
    """The part of a data module that evaluators use; `ssl_zoo.data` has two of them."""

    facts: dict[str, Any]
    views: Callable[..., list[Tensor]]
    """The training views, `ssl_zoo.views.Views`."""

    def eval_batches(self, split: str, batch_size: int) -> Iterable[Batch]:
        """Batches of labelled examples, one plain view each, every example of `split` ("train" | "test") once."""


class Evaluator(Protocol):
    """Judges what it is shown in plain numbers; it knows nothing of methods, and leaves no trace in them."""

    needs_labels: bool

    def __call__(self, context: "EvalContext") -> dict[str, float]: ...


class EvalContext:
    """A method at one moment of its run. Features are extracted at first use, in one pass, for all evaluators.

    phase: "init" before step 0, "periodic" during training, "final" at its end.
    precision: makes the autocast context the encoder runs under. batch_size: examples a forward pass.
    loaded: whether the run started from weights trained elsewhere.
    """

    def __init__(
        self,
        method: Method,
        data: Data,
        phase: Literal["init", "periodic", "final"],
        precision: Callable[[], AbstractContextManager] = nullcontext,
        batch_size: int = 256,
        loaded: bool = False,
    ):
        self.method, self.data, self.phase = method, data, phase
        self.precision, self.batch_size, self.loaded = precision, batch_size, loaded

    @property
    def device(self) -> torch.device:
        return next(self.method.parameters()).device

    @cached_property
    def train(self) -> Features:
        """Of the training part. Raises: FloatingPointError when the encoder returns NaN or Inf."""
        return self._encode("train")

    @cached_property
    def test(self) -> Features:
        """Of the test part. Raises: FloatingPointError when the encoder returns NaN or Inf."""
        return self._encode("test")

    def inputs(self, split: str) -> Features:
        """The plain views themselves, flattened: what there was before any encoder."""
        return self.collect(split, lambda view: view.flatten(1))

    def collect(self, split: str, describe: Callable[[Tensor], Tensor]) -> Features:
        """`describe`, (B, ...) -> (B, D), of every example of `split`; it need not be the encoder."""
        parts = [
            (describe(batch.views[0].to(self.device)).float().cpu(), batch.labels.cpu(), batch.indices.cpu())
            for batch in self.data.eval_batches(split, self.batch_size)
        ]
        x, y, indices = (torch.cat(part) for part in zip(*parts, strict=True))
        order = indices.argsort()  # text comes in buckets of like length
        return Features(x[order], y[order], indices[order])

    def _encode(self, split: str) -> Features:
        with same_rng(), frozen(self.method), self.precision():
            features = self.collect(split, self.method.encoder)
        if not features.x.isfinite().all():
            raise FloatingPointError(f"the encoder's features of the {split} part hold NaN or Inf")
        return features


def evaluate(evaluators: Mapping[str, Evaluator], context: EvalContext) -> dict[str, float]:
    """All metrics of all evaluators. The method, its mode and every random state are as before afterwards.

    An evaluator that needs labels or a test part the data does not have is left out, which is said once.

    Raises:
        ValueError: when two evaluators report the same metric.
    """
    metrics: dict[str, float] = {}
    for name, evaluator in evaluators.items():
        missing = _missing(context.data.facts) if evaluator.needs_labels else None
        if missing:
            print_note(f"{name} skipped: this data has no {missing}")
            continue
        with same_rng():
            found = evaluator(context)
        if twice := sorted(found.keys() & metrics.keys()):
            raise ValueError(f"evaluators={list(evaluators)}: two of them report {', '.join(twice)}; leave one out")
        metrics |= found
    return metrics


def _missing(facts: dict[str, Any]) -> str | None:
    if not facts["has_labels"]:
        return "labels"
    return None if facts["num_test"] else "labelled test part"


@cache
def print_note(line: str) -> None:
    """Prints `line`, the first time only: evaluators run before, during and after training."""
    print(line)


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """`module` in evaluation mode without gradient; afterwards each of its parts is in the mode it was in."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        with torch.no_grad():  # not inference_mode: probes differentiate with respect to weights that meet the features
            yield
    finally:
        for part, training in modes:
            part.training = training


@contextmanager
def same_rng() -> Iterator[None]:
    """Afterwards the random states of Python, NumPy and torch are what they were: evaluation never moves training."""
    python, array = random.getstate(), np.random.get_state()
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    try:
        with torch.random.fork_rng(devices):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(array)
