"""Writes, verifies and loads checkpoints; robust to killed processes, full disks and corrupted bytes.

A run keeps its checkpoints as `<run folder>/checkpoints/step-00001234.ckpt`, named by optimizer step. They are
Lightning checkpoints (weights, optimizer, loop progress) that contain only tensors and plain values, and are always
read with `weights_only=True`, so that loading an untrusted file never executes code.
"""

import logging
import os
import pickle
import re
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import CheckpointIO
from torch import nn

from ssl_zoo import files
from ssl_zoo.report import results

log = logging.getLogger(__name__)

REQUIRED_KEYS = ("state_dict", "global_step", "optimizer_states", "loops")
"""Keys without which a run cannot be resumed from a checkpoint."""

_FILE_NAME = re.compile(r"step-(\d{8,})\.ckpt")

# What the zip reader raises on damage, depending on the corrupted byte (measured by flipping every byte of a file).
_ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, RuntimeError, ValueError)


class DamagedCheckpoint(ValueError):
    """A checkpoint that cannot be used. `reason` is a short cause; the message also names the file and a remedy."""

    def __init__(self, path: Path, reason: str, remedy: str):
        size = f"{path.stat().st_size:,} bytes" if path.is_file() else "no such file"
        super().__init__(f"checkpoint {path} ({size}): {reason}. {remedy}")
        self.reason = reason


class CheckpointNotWritten(OSError):
    """A save failed, usually because the disk is full. No partial file remains and no checkpoint was replaced.

    It ends training only at the last save of a run; earlier saves are retried later.
    """


def verify_checkpoint(path: str | Path) -> None:
    """Reads the whole file and checks that a run can be resumed from it.

    Raises:
        DamagedCheckpoint: if the file is truncated, empty or of another format, a checksum is wrong (torch itself does
            not check them), keys are missing, or it contains anything but tensors and plain values.
    """
    path = Path(path)
    _check_bytes(path)
    contents = _unpickle(path, "cpu", mmap=True)
    if missing := [key for key in REQUIRED_KEYS if key not in contents]:
        raise DamagedCheckpoint(path, f"it lacks {', '.join(missing)}", "Give a checkpoint written by a training run.")


def load_checkpoint(path: str | Path, map_location: Any = "cpu") -> dict[str, Any]:
    """Verifies and loads a checkpoint. `map_location` as for `torch.load`. Raises `DamagedCheckpoint`."""
    verify_checkpoint(path)
    return _unpickle(Path(path), map_location, mmap=False)


def stored_card(path: str | Path) -> dict[str, Any]:
    """Returns the card stored in a checkpoint, {} if another program wrote it. Raises `DamagedCheckpoint`."""
    found = _stored_state(path).get("card")
    return found if isinstance(found, dict) else {}


def seconds_trained(path: str | Path) -> float:
    """Returns the training time in seconds up to a checkpoint. Raises `DamagedCheckpoint`."""
    return float(_stored_state(path).get("elapsed", 0.0))


def _stored_state(path: str | Path) -> dict[str, Any]:
    """Returns what the Learner stored in a checkpoint, {} if another program wrote it."""
    found = _unpickle(Path(path), "cpu", mmap=True).get("ssl_zoo")
    return found if isinstance(found, dict) else {}


def step_of(path: str | Path) -> int:
    """Returns the optimizer step in a checkpoint's name: 1234 for step-00001234.ckpt."""
    match = _FILE_NAME.fullmatch(Path(path).name)
    if match is None:
        raise ValueError(f"{path}: not named step-<number>.ckpt")
    return int(match.group(1))


def latest_checkpoint(folder: str | Path) -> Path | None:
    """Returns the newest undamaged checkpoint of a run folder, None if there is none; warns about damaged ones."""
    newest, damaged = None, []
    for path in reversed(list_checkpoints(folder)):
        try:
            verify_checkpoint(path)
        except DamagedCheckpoint as error:
            damaged.append(f"{path.name} ({error.reason})")
        else:
            newest = path
            break
    if damaged:
        used = f"using {newest.name}" if newest else "none is left"
        log.warning("skipped damaged checkpoints in %s: %s; %s", folder, ", ".join(damaged), used)
    return newest


def resolve_checkpoint(checkpoint: str | Path) -> Path:
    """Returns the verified file for `checkpoint=<file or run folder>`; for a folder, the run's last checkpoint.

    Raises:
        ValueError: if there is none, or the last one is damaged or missing. An older one is used only if its file is
            given explicitly.
    """
    path = Path(checkpoint).expanduser()
    if path.is_file():
        verify_checkpoint(path)
        return path
    if not path.is_dir():
        raise ValueError(f"checkpoint={checkpoint}: no such file or folder. Give a checkpoint file or a run folder.")
    newest, found = latest_checkpoint(path), list_checkpoints(path)
    if newest is None:
        what = (
            f"all {len(found)} checkpoints here are damaged" if found else "no checkpoints/step-*.ckpt in this folder"
        )
        raise ValueError(f"checkpoint={checkpoint}: {what}. Give a checkpoint file or another run folder.")
    if step_of(newest) != (last := max(step_of(found[-1]), _recorded_step(path))):
        raise ValueError(
            f"checkpoint={checkpoint}: the run's last checkpoint, of step {last}, is missing or damaged. Give the run "
            f"folder as it was, or the newest sound file: checkpoint={newest}"
        )
    return newest


def _recorded_step(folder: Path) -> int:
    """Returns the step of the last checkpoint according to results.json, 0 if unknown."""
    try:
        return int(results.read_results(folder).get("checkpoint_step", 0))
    except (OSError, ValueError):  # no results, or damaged: rely on the checkpoint files
        return 0


class SafeCheckpointIO(CheckpointIO):
    """Writes checkpoints atomically and verifies them when writing and reading.

    Lightning's default plugin writes to $TMPDIR and then copies over the old file; a process killed during that copy
    loses the old checkpoint too. Here the file is written next to its destination, flushed, read back and renamed.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Saves a checkpoint atomically.

        Raises:
            CheckpointNotWritten: if the disk refuses the file.
            DamagedCheckpoint: if the contents are not tensors and plain values.
        """
        path = Path(path)
        part = path.with_name(f".{path.name}.part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(part, "wb", opener=files.open_no_follow) as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            if (record := _wrong_record(part)) is not None:
                raise OSError(f"{record} reads back differently from what was written")
            _unpickle(part, "cpu", mmap=True)
            os.replace(part, path)
            descriptor = os.open(path.parent, os.O_RDONLY)
            os.fsync(descriptor)  # makes the rename durable
            os.close(descriptor)
        except (OSError, RuntimeError, zipfile.BadZipFile) as error:
            cause = error.__context__ or error  # torch raises RuntimeError while handling the OSError
            raise CheckpointNotWritten(f"{path} could not be written: {cause}. Older checkpoints are kept.") from error
        finally:
            part.unlink(missing_ok=True)

    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Verifies and loads a checkpoint, always with `weights_only=True`. Raises `DamagedCheckpoint`."""
        return load_checkpoint(path, "cpu" if map_location is None else map_location)

    def remove_checkpoint(self, path: str | Path) -> None:
        """Deletes a checkpoint if it exists."""
        Path(path).unlink(missing_ok=True)


def list_checkpoints(folder: str | Path) -> list[Path]:
    """Returns the checkpoints in a run folder or in its `checkpoints` folder, oldest first."""
    below = Path(folder) / "checkpoints"
    names = (below if below.is_dir() else Path(folder)).glob("step-*.ckpt")
    return sorted((path for path in names if _FILE_NAME.fullmatch(path.name)), key=step_of)


def _check_bytes(path: Path) -> None:
    if not path.is_file():
        raise DamagedCheckpoint(path, "it does not exist", "Give a checkpoint file or a run folder.")
    with path.open("rb") as file:
        head = file.read(256).lstrip().lower()
    if not head:
        raise DamagedCheckpoint(path, "the file is empty", "Delete it and use an earlier one.")
    if head.startswith(b"version https://git-lfs"):
        raise DamagedCheckpoint(path, "a git-lfs pointer, not the file itself", "Fetch it with `git lfs pull`.")
    if head.startswith((b"<!doctype", b"<html")):
        raise DamagedCheckpoint(path, "a web page, not a checkpoint", "Download it again; a login may be needed.")
    remedy = "Copy it again or use an earlier one."
    try:
        record = _wrong_record(path)
    except _ZIP_ERRORS as error:
        raise DamagedCheckpoint(path, f"truncated or damaged ({error})", remedy) from error
    if record is not None:
        raise DamagedCheckpoint(path, f"the checksum of {record} is wrong", remedy)


def _wrong_record(path: Path) -> str | None:
    """Returns the first damaged record of the archive, None if there is none."""
    with zipfile.ZipFile(path) as archive:
        folders = [record.filename for record in archive.infolist() if record.external_attr & 0x10]
        return folders[0] if folders else archive.testzip()  # torch accepts a record marked as a folder


def _unpickle(path: Path, map_location: Any, mmap: bool) -> dict[str, Any]:
    """Loads with `weights_only=True`; with `mmap`, tensor data are read only when used."""
    remedy = "Give a checkpoint written by a training run."
    try:
        contents = torch.load(path, map_location=map_location, weights_only=True, mmap=mmap)
    except pickle.UnpicklingError as error:
        reason = f"more than tensors and plain values inside ({str(error).splitlines()[0]})"
        advice = "Keep hyperparameters to numbers, strings, lists and dicts; do not load untrusted files."
        raise DamagedCheckpoint(path, reason, advice) from error
    except (RuntimeError, ValueError) as error:
        raise DamagedCheckpoint(path, f"not written by torch.save ({str(error).splitlines()[0]})", remedy) from error
    if not isinstance(contents, dict):
        raise DamagedCheckpoint(path, "not a checkpoint", remedy)
    return contents


def load_encoder(backbone: nn.Module, checkpoint: str) -> None:
    """Loads the encoder of a run into `backbone`. `checkpoint` is a run folder or a checkpoint file.

    Raises:
        ValueError: if there is no such checkpoint or its architecture differs.
    """
    saved = load_checkpoint(resolve_checkpoint(checkpoint))
    if "ssl_zoo" not in saved:
        raise ValueError(
            f"checkpoint={checkpoint} was not written by ssl_zoo. For other weights give backbone.pretrained=<file>"
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
