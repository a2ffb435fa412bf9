"""Estimates the training time from one batch before training starts."""

import copy
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from lightning.pytorch import Trainer

from ssl_zoo.data.base import DataModule
from ssl_zoo.method import Batch, Method
from ssl_zoo.training.grad_cache import in_chunks

MIN_PASS_SECONDS = 1.0
"""A forward and backward pass of at least this many seconds is timed once and accepted."""


def seconds_per_example(
    method: Method,
    data: DataModule,
    raw: Any,
    share: int,
    device: torch.device,
    precision: Callable[[], AbstractContextManager[Any]],
    chunk: int | None = None,
) -> float:
    """Measures wall-clock seconds per example of views, forward and backward pass, without loading and optimizer.

    Times a copy of `method` on growing slices of the batch until a pass takes `MIN_PASS_SECONDS` or contains `share`
    examples, which takes a few seconds in total. Leaves `method` and all random states unchanged.

    Args:
        method: the method to time, already on `device`.
        data: a data module with its views attached.
        raw: a batch as the loader returns it.
        share: number of examples per batch on this process.
        device: where training runs.
        precision: returns the autocast context of training.
        chunk: the value of `trainer.grad_cache`.
    """
    copied = copy.deepcopy(method).train()
    raw = data.transfer_batch_to_device(raw, device, 0)
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        batch, in_views = _timed(lambda: data.on_after_batch_transfer(raw, 0), device)
        count = min(8, share)
        while True:
            subset = Batch([view[:count] for view in batch.views], batch.labels[:count], batch.indices[:count])

            def step(subset: Batch = subset) -> None:
                with precision(), in_chunks(copied, chunk) if chunk else nullcontext():
                    loss = copied(subset, 0.0)["loss"]
                loss.backward()

            _, in_step = _timed(step, device)
            if in_step >= MIN_PASS_SECONDS or count == share:
                return in_views / len(batch.labels) + in_step / count
            count = min(4 * count, share)


def _timed(work: Callable[[], Any], device: torch.device) -> tuple[Any, float]:
    """Returns the result of `work` and its duration in seconds.

    Calls it twice and times the second call on a GPU, which loads kernels during the first, or if the first was short.
    """
    seconds = 0.0
    for _ in range(2):
        started = time.perf_counter()
        found = work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds = time.perf_counter() - started
        if device.type != "cuda" and seconds >= MIN_PASS_SECONDS:
            break
    return found, seconds


def format_duration(seconds: float) -> str:
    """Formats a duration with two significant digits: "40 s", "12 min", "3.5 h" or "2.1 days"."""
    for size, unit in ((1, "s"), (60, "min"), (3600, "h")):
        limit = {"s": 90, "min": 90, "h": 48}[unit]
        if seconds / size < limit:
            break
    else:
        size, unit = 86400, "days"
    return f"{seconds / size:.2g} {unit}"


def seconds_per_step(trainer: Trainer, method: Method, data: DataModule, raw: Any, chunk: int | None = None) -> float:
    """Estimates seconds per optimizer step. Processes run in parallel on GPUs but share the cores of a CPU.

    Args:
        trainer: tells the device, the precision and how many batches make a step.
        method: the method to time.
        data: a data module with its views attached.
        raw: a batch as the loader returns it.
        chunk: the value of `trainer.grad_cache`.
    """
    device = trainer.strategy.root_device
    method.to(device)
    parallel = trainer.world_size if device.type == "cuda" else 1
    share: int = data.batch_size // parallel
    seconds = seconds_per_example(method, data, raw, share, device, trainer.precision_plugin.forward_context, chunk)
    batches: int = trainer.accumulate_grad_batches
    return seconds * share * batches
