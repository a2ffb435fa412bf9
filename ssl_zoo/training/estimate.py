"""How long training will take, measured on one batch before it starts."""

import copy
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from lightning.pytorch import Trainer

from ssl_zoo.data.base import DataModule
from ssl_zoo.method import Batch, Method

MIN_PASS_SECONDS = 1.0
"""Seconds of a forward and backward pass that need no larger or second pass to be believed."""


def seconds_per_example(
    method: Method,
    data: DataModule,
    raw: Any,
    share: int,
    device: torch.device,
    precision: Callable[[], AbstractContextManager[Any]],
) -> float:
    """Wall-clock seconds of views, forward and backward pass of one example; loading and optimizer are left out.

    Times a copy of `method` on growing slices of the batch until a pass takes `MIN_PASS_SECONDS` or contains `share`
    examples, which takes a few seconds in total. Leaves `method` and all random states unchanged.

    Args:
        method: the method to time, already on `device`.
        data: a data module with its views attached.
        raw: a batch as the loader returns it.
        share: number of examples per batch on this process.
        device: where training runs.
        precision: returns the autocast context of training.
    """
    copied = copy.deepcopy(method).train()
    raw = data.transfer_batch_to_device(raw, device, 0)
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        batch, in_views = _timed(lambda: data.on_after_batch_transfer(raw, 0), device)
        count = min(8, share)
        while True:
            part = Batch([view[:count] for view in batch.views], batch.labels[:count], batch.indices[:count])

            def step(part: Batch = part) -> None:
                with precision():
                    loss = copied(part, 0.0)["loss"]
                loss.backward()

            _, in_step = _timed(step, device)
            if in_step >= MIN_PASS_SECONDS or count == share:
                return in_views / len(batch.labels) + in_step / count
            count = min(4 * count, share)


def _timed(work: Callable[[], Any], device: torch.device) -> tuple[Any, float]:
    """Returns what `work` returns and the seconds it takes.

    Of two calls if the first was short, or on a GPU, which loads its kernels then; the second counts.
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
    """Returns a duration in words: "40 s", "12 min", "3.5 h" or "2.1 days", with two digits."""
    for size, unit in ((1, "s"), (60, "min"), (3600, "h")):
        limit = {"s": 90, "min": 90, "h": 48}[unit]
        if seconds / size < limit:
            break
    else:
        size, unit = 86400, "days"
    return f"{seconds / size:.2g} {unit}"


def seconds_per_step(trainer: Trainer, method: Method, data: DataModule, raw: Any) -> float:
    """An estimate for one optimizer step of all processes, which share the cores of a CPU but not a GPU."""
    device = trainer.strategy.root_device
    method.to(device)
    at_once = trainer.world_size if device.type == "cuda" else 1
    share: int = data.batch_size // at_once
    seconds = seconds_per_example(method, data, raw, share, device, trainer.precision_plugin.forward_context)
    batches: int = trainer.accumulate_grad_batches
    return seconds * share * batches
