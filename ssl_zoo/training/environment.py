"""The environment of a run: device, software versions and peak memory."""

import logging
import os
import platform
import resource
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer

from ssl_zoo.training import cluster, hardware


def device_type(accelerator: str) -> str:
    """Returns the device type that `trainer.accelerator` selects, "cuda" or "cpu"."""
    wants_gpu = accelerator in ("gpu", "cuda") or (accelerator == "auto" and torch.cuda.is_available())
    if wants_gpu and not torch.cuda.is_available():
        raise ValueError(f"trainer.accelerator={accelerator}: no GPU is visible. Give trainer=cpu or trainer=auto")
    return "cuda" if wants_gpu else "cpu"


def single_device(accelerator: str, precision: str) -> Trainer:
    """Returns a Trainer that stands for one device and its precision, for work that is no training run."""
    return Trainer(
        accelerator=accelerator,
        devices=1,
        precision=precision,  # type: ignore[arg-type]  # one of Lightning's names
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def describe_environment(trainer: Trainer, precision: str) -> dict[str, Any]:
    """Returns what results depend on besides the configuration: versions, device, processes, precision, commit.

    In a job of Slurm also its id, and how often it was requeued.
    """
    device = trainer.strategy.root_device
    on_gpu = device.type == "cuda"
    name = torch.cuda.get_device_name(device) if on_gpu else f"{hardware.processor_name()}, {os.cpu_count()} cores"
    git = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return {
        "torch": str(torch.__version__),  # a plain string, because checkpoints store it
        "python": platform.python_version(),
        "device": name,
        "processes": trainer.world_size,
        "precision": precision,
        "git": git.stdout.strip() or None,
        **cluster.describe_job(),
    }


def peak_memory(trainer: Trainer) -> int:
    """Returns peak memory in bytes: allocated on the GPU if there is one, else resident in this process."""
    if trainer.strategy.root_device.type == "cuda":
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def quiet_lightning() -> None:
    """Limits Lightning's loggers to warnings and removes its handler, which would print each line twice."""
    warnings.filterwarnings("ignore", message=".*LeafSpec.*is deprecated")  # raised by Lightning itself
    warnings.filterwarnings("ignore", message="Found .* in eval mode")  # EMA teachers, see `functional.ema_mode`
    for name in ("lightning", "lightning.pytorch", "lightning.fabric"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.setLevel(logging.WARNING)
