"""What evaluators get: a method at one moment of its run, and its frozen encoder's features of the two splits."""

import logging
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache, cached_property
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from ssl_zoo.data.base import EvalData
from ssl_zoo.method import Method

log = logging.getLogger(__name__)

Phase = Literal["init", "periodic", "final"]
"""The moment of a run: before step 0, during training, at its end."""


class Features(NamedTuple):
    """Features of the N examples of one split, in the order of their indices, on the CPU.

    Attributes:
        x: (N, D) float32, outputs of the encoder.
        y: (N,) int64, labels, -1 where unknown.
        indices: (N,) int64, the position of each example in its data set.
    """

    x: Tensor
    y: Tensor
    indices: Tensor


class Evaluator(Protocol):
    """Computes metrics from a context. It knows no particular method and leaves the method unchanged.

    One that needs more of a method than its encoder names a runtime-checkable protocol as its attribute `needs_method`.
    """

    needs_labels: bool

    def __call__(self, context: "EvalContext") -> dict[str, float]:
        """Metrics by name."""


class EvalContext:
    """A method at one moment of its run. Features are extracted at first use, in one pass, for all evaluators.

    Args:
        method: the method; its encoder is what is evaluated.
        data: a data module.
        phase: "init" before step 0, "periodic" during training, "final" at its end.
        precision: makes the autocast context that the encoder runs under.
        batch_size: examples per forward pass.
        loaded: whether the run started from weights trained elsewhere.

    Attributes:
        labelled: labels and indices, (N,) int64 each, of the splits that have been collected.
        probe: the `StandardizedProbe` that the evaluator `linear` has fitted, None before; it is kept with the encoder.
    """

    def __init__(
        self,
        method: Method,
        data: EvalData,
        phase: Phase,
        precision: Callable[[], AbstractContextManager] = nullcontext,
        batch_size: int = 256,
        loaded: bool = False,
    ):
        self.method = method
        self.data = data
        self.phase = phase
        self.precision = precision
        self.batch_size = batch_size
        self.loaded = loaded
        self.labelled: dict[str, tuple[Tensor, Tensor]] = {}
        self.probe: Any = None

    @property
    def device(self) -> torch.device:
        """The device of the method's parameters."""
        return next(self.method.parameters()).device

    @cached_property
    def train(self) -> Features:
        """Features of the examples of the training split that are evaluated on; see `EvalData.eval_batches`.

        Raises:
            FloatingPointError: when the encoder returns NaN or Inf.
        """
        return self._encode("train")

    @cached_property
    def test(self) -> Features:
        """Features of the examples of the test split that are evaluated on; see `EvalData.eval_batches`.

        Raises:
            FloatingPointError: when the encoder returns NaN or Inf.
        """
        return self._encode("test")

    def inputs(self, split: str) -> Features:
        """The evaluation views of a split, flattened: the data before any encoder."""
        return self.collect(split, lambda view: view.flatten(1))

    def collect(self, split: str, function: Callable[[Tensor], Tensor]) -> Features:
        """Features of a split by any function, which need not be the encoder: the mean over the views of an example.

        Args:
            split: "train" or "test".
            function: maps a view (B, ...) to (B, D).
        """
        outputs = []
        for batch in self.data.eval_batches(split, self.batch_size):
            views = [function(view.to(self.device)).float() for view in batch.views]
            outputs.append((torch.stack(views).mean(dim=0).cpu(), batch.labels.cpu(), batch.indices.cpu()))
        x, y, indices = (torch.cat(tensors) for tensors in zip(*outputs, strict=True))
        order = indices.argsort()  # text comes in buckets of similar length
        self.labelled[split] = y[order], indices[order]
        return Features(x[order], y[order], indices[order])

    def _encode(self, split: str) -> Features:
        with same_rng(), frozen(self.method), self.precision():
            features = self.collect(split, self.method.encoder)
        if not features.x.isfinite().all():
            raise FloatingPointError(f"the encoder's features of the {split} split hold NaN or Inf")
        return features


def run_evaluators(evaluators: Mapping[str, Evaluator], context: EvalContext) -> dict[str, float]:
    """Runs all evaluators and leaves the method, its mode and every random state as they were.

    An evaluator that needs labels or a test split that the data does not have is skipped, with a message.

    Returns:
        All metrics by name.

    Raises:
        ValueError: when two evaluators report the same metric.
    """
    metrics: dict[str, float] = {}
    for name, evaluator in evaluators.items():
        missing = _missing(context.data.facts) if evaluator.needs_labels else None
        if missing:
            warn_once(f"{name} skipped: this data has no {missing}")
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
    return None if facts["num_test"] else "labelled test split"


@cache
def warn_once(line: str) -> None:
    """Logs `line` as a warning the first time only: evaluators run before, during and after training."""
    log.warning(line)


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Puts `module` in evaluation mode without gradients; on exit every submodule is in its former mode again."""
    modes = [(submodule, submodule.training) for submodule in module.modules()]
    module.eval()
    try:
        # Not inference_mode: probes differentiate with respect to weights that are multiplied by the features.
        with torch.no_grad():
            yield
    finally:
        for submodule, training in modes:
            submodule.training = training


@contextmanager
def same_rng() -> Iterator[None]:
    """Restores the random states of Python, NumPy and torch on exit, so that evaluation never changes training."""
    python = random.getstate()
    numpy = np.random.get_state()
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    try:
        with torch.random.fork_rng(devices):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
