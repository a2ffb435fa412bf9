"""The parts of one training run that are neither maths nor data: resuming, checks, the trainer, judging, the record."""

import json
import logging
import os
import platform
import resource
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only
from rich.console import Console
from rich.table import Table
from torch import nn

from ssl_zoo import checkpoints, hardware, picture, results, summary
from ssl_zoo.budget import count_flops
from ssl_zoo.clean import only_shown
from ssl_zoo.estimate import seconds_per_example
from ssl_zoo.evaluators import few_labels
from ssl_zoo.evaluators.judged import Evaluator, Features, Judged, evaluate
from ssl_zoo.evaluators.zero_shot import TwoTowers
from ssl_zoo.learner import Learner
from ssl_zoo.method import Method
from ssl_zoo.overrides import dotted_keys
from ssl_zoo.proportion import Proportion

FREE = ("logger", "trainer.checkpoint_every", "trainer.evaluate_", "trainer.log_every_n_steps", "name")
"""Keys that may differ between a run and its resumption: they change what is written, not what is learned."""


class FolderTaken(ValueError):
    """The run folder holds a run with other settings; nothing in it was touched."""


def resume_point(folder: Path, config: Mapping[str, Any]) -> Path | None:
    """The checkpoint to go on from, None in a fresh folder. Keeps the configuration there for the next time.

    A run that ended before its first checkpoint leaves nothing to go on from, and the folder to any configuration.

    Raises:
        FolderTaken: when the folder holds a run of another configuration; names each key that differs.
    """
    kept = folder / "config.json"
    if kept.exists() and (results.is_complete(folder) or any((folder / "checkpoints").glob("step-*.ckpt"))):
        before, now = (dotted_keys(c) for c in (json.loads(kept.read_text()), config))
        different = [
            f"{key}={now.get(key)} (was {before.get(key)})"
            for key in sorted(before.keys() | now.keys())
            if before.get(key) != now.get(key)
            and not key.startswith(FREE)
            and not isinstance(before.get(key, now.get(key)), dict)
        ]
        if different:
            raise FolderTaken(
                f"hydra.run.dir={folder} holds a run with other settings: {', '.join(different)}. "
                "Give the same settings to resume it, or another hydra.run.dir"
            )
    elif int(os.environ.get("LOCAL_RANK", 0)) == 0:
        results.write_json(kept, dict(config))
    return checkpoints.latest(folder / "checkpoints")


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Keeps other runs out of the folder; the first process does so for all of a run's processes.

    Raises:
        FolderTaken: when another run is at work there.
    """
    if rank_zero_only.rank:  # type: ignore[attr-defined]
        yield
        return
    try:
        held = FileLock(folder / ".lock").acquire(timeout=0)
    except Timeout:
        raise FolderTaken(
            f"hydra.run.dir={folder}: another run is at work there. Wait for its end, or give another folder"
        ) from None
    with held:
        yield


def check_method(method: Method, data: Any) -> None:
    """Raises ValueError when the data or the views cannot serve the method."""
    if (num_views := len(data.views)) < method.min_views:
        raise ValueError(
            f"views: {type(method).__name__} needs {method.min_views} views of each example, these give {num_views}. "
            "Choose others, e.g. views=simclr for images or views=windows for text"
        )
    if "num_captions" in data.facts and not isinstance(method, TwoTowers):
        raise ValueError(
            f"method: {type(method).__name__} has no text encoder for the captions of this data. "
            "Choose method=clip or method=siglip, or the same images without captions, e.g. data=cifar10"
        )
    if method.uses_labels and not data.rows_have_labels:
        raise ValueError(
            f"method: {type(method).__name__} learns from labels, and not all training examples have one. "
            "Choose labelled data or splits; for text give data.train_rows=labelled"
        )


def load_encoder(backbone: nn.Module, checkpoint: str) -> None:
    """Starts `backbone` from the encoder that a run kept, given as its folder or a checkpoint file.

    Raises:
        ValueError: when there is no such checkpoint or it holds another architecture.
    """
    path = checkpoints.resolve(checkpoint)
    saved = checkpoints.load(path)
    if "ssl_zoo" not in saved:
        raise ValueError(
            f"checkpoint={checkpoint} is of no run of ours. For weights from elsewhere give backbone.pretrained=<file>"
        )
    prefix = saved["ssl_zoo"]["encoder"] + "."
    weights = {key.removeprefix(prefix): v for key, v in saved["state_dict"].items() if key.startswith(prefix)}
    own = backbone.state_dict()
    wrong = [
        k for k in own.keys() | weights.keys() if k not in own or k not in weights or own[k].shape != weights[k].shape
    ]
    if wrong:
        raise ValueError(
            f"checkpoint={checkpoint} holds another architecture: {len(wrong)} of {len(own)} tensors of this backbone "
            f"do not match, the first is {min(wrong)}. Give the backbone (and, for text, the data) it was trained with"
        )
    backbone.load_state_dict(weights)


def judged(trainer: Trainer, method: Method, data: Any, phase: Any, loaded: bool = False) -> Judged:
    """The method as evaluators see it, on the trainer's device and in its precision; `loaded` as in `Judged`."""
    method.to(trainer.strategy.root_device)
    return Judged(method, data, phase, trainer.precision_plugin.forward_context, loaded=loaded)


class PeriodicEvaluation(Callback):
    """Judges the encoder every `every` optimizer steps and logs it under eval/; rank 0 works, the others wait.

    seconds: what that has cost in this session.
    """

    def __init__(self, data: Any, evaluators: Mapping[str, Evaluator], every: int):
        self.data, self.evaluators, self.every = data, evaluators, every
        self.judged_at = 0
        self.seconds = 0.0

    def on_train_batch_end(self, trainer: Trainer, learner: LightningModule, *_: Any) -> None:
        assert isinstance(learner, Learner)
        step = learner.global_step
        if step == self.judged_at or step % self.every or learner.now >= 1:
            return
        self.judged_at, started = step, time.perf_counter()
        if trainer.is_global_zero:
            metrics = evaluate(self.evaluators, judged(trainer, learner.method, self.data, "periodic"))
            for logger in trainer.loggers:
                logger.log_metrics({f"eval/{name}": value for name, value in metrics.items()}, step)
            told = [f"{name} {value.percent}" for name, value in metrics.items() if isinstance(value, Proportion)]
            print(f"step {step}: {', '.join(told)}")
        trainer.strategy.barrier()
        self.seconds += time.perf_counter() - started


PAUSES = (checkpoints.PeriodicCheckpoint, PeriodicEvaluation)
"""Callbacks whose `.seconds` are no training time."""


def device_type(accelerator: str) -> str:
    """ "cuda" or "cpu": where `trainer.accelerator` will train."""
    wants_gpu = accelerator in ("gpu", "cuda") or (accelerator == "auto" and torch.cuda.is_available())
    if wants_gpu and not torch.cuda.is_available():
        raise ValueError(f"trainer.accelerator={accelerator}: no GPU is visible. Give trainer=cpu or trainer=auto")
    return "cuda" if wants_gpu else "cpu"


def environment(trainer: Trainer, precision: str) -> dict[str, Any]:
    """What the numbers depend on besides the configuration."""
    device = trainer.strategy.root_device
    on_gpu = device.type == "cuda"
    name = torch.cuda.get_device_name(device) if on_gpu else f"{hardware.processor()}, {os.cpu_count()} cores"
    git = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return {
        "torch": torch.__version__,
        "python": platform.python_version(),
        "device": name,
        "processes": trainer.world_size,
        "precision": precision,
        "git": git.stdout.strip() or None,
    }


def peak_memory(trainer: Trainer) -> int:
    """Bytes: of the GPU's allocations where there is one, else resident in this process."""
    if trainer.strategy.root_device.type == "cuda":
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def flops_per_example(method: Method, data: Any, raw: Any) -> float:
    """Training FLOPs of one example, counted on `raw`, a batch as the loader gives it (see `budget.count_flops`)."""
    return count_flops(method, data.on_after_batch_transfer(raw, 0))


def seconds_per_step(trainer: Trainer, method: Method, data: Any, raw: Any) -> float:
    """An estimate for one optimizer step of all processes, which share the cores of a CPU but not a GPU."""
    device = trainer.strategy.root_device
    method.to(device)
    at_once = trainer.world_size if device.type == "cuda" else 1
    share = data.batch_size // at_once
    seconds = seconds_per_example(method, data, raw, share, device, trainer.precision_plugin.forward_context)
    return seconds * share * trainer.accumulate_grad_batches


def speed(trainer: Trainer, learner: Learner, batch_size: int, started: float) -> dict[str, float]:
    """Of the training loop with data and views, without its first step, evaluation and checkpoints."""
    return {
        "examples_per_second": learner.steps_per_second() * batch_size,
        "peak_memory_bytes": peak_memory(trainer),
        "seconds_to_first_step": learner.first_step_at - started,
    }


def quiet_lightning() -> None:
    """Keeps Lightning's warnings and drops its notices and its own handler, which would print each line twice."""
    warnings.filterwarnings("ignore", message=".*LeafSpec.*is deprecated")  # of Lightning's own calls
    warnings.filterwarnings("ignore", message="Found .* in eval mode")  # EMA teachers, see `functional.ema_mode`
    for name in ("lightning", "lightning.pytorch", "lightning.fabric"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.setLevel(logging.WARNING)


def show(folder: Path, name: str, metrics: Mapping[str, float], data: Any, features: Features | None) -> None:
    """Prints the metrics of the trained encoder beside those before training, and draws report.png.

    The run is complete by then: whatever goes wrong here is a warning.
    name: of the method; features: of the test part, None without evaluators that looked at them.
    """
    few = [key for key in metrics if key.startswith("few/")]
    labelled = features is not None and bool((features.y >= 0).any())
    majority = features.y.bincount().max().item() / len(features.y) if features is not None and labelled else None
    with only_shown("the table of metrics"):
        console = Console()
        title = "test metrics of the last epoch, with their 95 % intervals by n examples"
        table = Table("metric", "before training", "trained", "n", title=title, title_justify="left")
        for key in sorted(key for key in metrics if not key.startswith(("init/", "few/"))):
            value = metrics[key]
            count = f"{value.n:,}" if isinstance(value, Proportion) else ""
            table.add_row(key, summary.shown(metrics.get(f"init/{key}")), summary.shown(value), count)
        if table.row_count:
            if majority is not None:
                table.add_row("majority class", "", f"{100 * majority:.1f} %", "")
            console.print(table)
        if few:
            console.print(few_labels.table(metrics, name))
        if sentence := summary.nothing_learned(metrics, majority):
            print(sentence)
    if features is not None and labelled:
        with only_shown("the picture of the run"):
            picture.draw(metrics, name, features.x, features.y, data.facts["class_names"], folder / "report.png")
            print(f"picture: {folder / 'report.png'}")
    with only_shown("where the results are"):
        print(f"results: {folder / results.NAME}")
