"""The parts of one training run that are neither maths nor data: checks, the trainer, judging, the record."""

import logging
import os
import platform
import resource
import subprocess
import sys
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from rich.console import Console
from rich.table import Table
from torch import nn

from ssl_zoo import checkpoints, files, hardware, picture, run_folder, summary
from ssl_zoo.budget import count_flops
from ssl_zoo.clean import only_shown
from ssl_zoo.estimate import seconds_per_example
from ssl_zoo.evaluators import few_labels
from ssl_zoo.evaluators.judged import Evaluator, Features, Judged, evaluate
from ssl_zoo.evaluators.zero_shot import TwoTowers
from ssl_zoo.learner import Learner
from ssl_zoo.method import Method
from ssl_zoo.proportion import Proportion
from ssl_zoo.saving import PeriodicCheckpoint


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


PAUSES = (PeriodicCheckpoint, PeriodicEvaluation)
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
        "torch": str(torch.__version__),  # a plain text: it goes into checkpoints
        "python": platform.python_version(),
        "device": name,
        "processes": trainer.world_size,
        "precision": precision,
        "git": git.stdout.strip() or None,
    }


def data_differences(resume: Path, content: str, found: run_folder.Found) -> list[str]:
    """A warning if the data is no longer what the run began with. content: of the data now, see `ImageData.content`.

    Raises:
        FolderTaken: when the data is elsewhere and cannot be shown to be the same.
    """
    if checkpoints.card(resume).get("content", content) == content:
        return []
    if moved := [f"{key}={found.changed[key][0]}" for key in ("data.path", "data.root") if key in found.changed]:
        raise run_folder.FolderTaken(
            f"{', '.join(moved)}: this is not the data that the run in {resume.parent.parent} began with, or (files of "
            "more than 1 GB in all are known by name, size and time) not an exact copy. Give the data of before, or "
            "another hydra.run.dir"
        )
    return ["data: its files have changed since the run began, so the rest of the run learns from other data"]


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
    """Of the training loop with data and views, without its first step, evaluation and checkpoints; {} if none was made
    in this session."""
    if learner.first_step_done is None:
        return {}
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

    The run is complete by then: whatever goes wrong in showing it is a warning, but for a disk that refuses the file.
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
        drawn = b""
        with only_shown("the picture of the run"):
            drawn = picture.draw(metrics, name, features.x, features.y, data.facts["class_names"])
        if drawn:
            files.replace(folder / "report.png", drawn)
            with only_shown("where the picture is"):
                print(f"picture: {folder / 'report.png'}")
