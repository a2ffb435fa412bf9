"""Checkpoints that survive kills, full disks and flipped bytes.

A run keeps its checkpoints as `<run folder>/checkpoints/step-00001234.ckpt`, named by optimizer step. They are
Lightning's checkpoints (weights, optimizer, loop progress), hold tensors and plain values only, and are always read
with `weights_only=True`: loading a stranger's file runs none of their code.
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
from ssl_zoo.training import checkpoints

log = logging.getLogger(__name__)

REQUIRED_KEYS = ("state_dict", "global_step", "optimizer_states", "loops")
"""What a checkpoint must hold for a run to go on from it."""

_FILE_NAME = re.compile(r"step-(\d{8,})\.ckpt")

# What Python's zip reader raises on damage, depending on which byte is hit (measured by flipping every byte of a file).
_ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, RuntimeError, ValueError)


class DamagedCheckpoint(ValueError):
    """A checkpoint that must not be used. `reason` says why in a few words, the message also names file and remedy."""

    def __init__(self, path: Path, reason: str, remedy: str):
        size = f"{path.stat().st_size:,} bytes" if path.is_file() else "no such file"
        super().__init__(f"checkpoint {path} ({size}): {reason}. {remedy}")
        self.reason = reason


class CheckpointNotWritten(OSError):
    """A save that failed, most often for lack of room. Nothing was left behind and nothing was replaced.

    Only the last save of a run raises it out of training; an earlier one is tried again later.
    """


def verify_checkpoint(path: str | Path) -> None:
    """Reads the whole file once and raises `DamagedCheckpoint` unless a run can go on from it.

    Finds truncated, empty and foreign files, any flipped byte (torch itself ignores the checksums), missing keys, and
    anything that is not a tensor or a plain value.
    """
    path = Path(path)
    _check_bytes(path)
    contents = _unpickle(path, "cpu", mmap=True)
    if missing := [key for key in REQUIRED_KEYS if key not in contents]:
        raise DamagedCheckpoint(path, f"it lacks {', '.join(missing)}", "Give a checkpoint written by a training run.")


def load_checkpoint(path: str | Path, map_location: Any = "cpu") -> dict[str, Any]:
    """The verified contents of a checkpoint; raises `DamagedCheckpoint`. `map_location` is torch.load's."""
    verify_checkpoint(path)
    return _unpickle(Path(path), map_location, mmap=False)


def stored_card(path: str | Path) -> dict[str, Any]:
    """What a run of ours has written into its checkpoint about itself, {} in others'. Raises `DamagedCheckpoint`."""
    about = _unpickle(Path(path), "cpu", mmap=True).get("ssl_zoo")
    found = about.get("card") if isinstance(about, dict) else None
    return found if isinstance(found, dict) else {}


def seconds_trained(path: str | Path) -> float:
    """Seconds of training that a run of ours has behind it at its checkpoint. Raises `DamagedCheckpoint`."""
    about = _unpickle(Path(path), "cpu", mmap=True).get("ssl_zoo")
    return float(about["elapsed"]) if isinstance(about, dict) else 0.0


def step_of(path: str | Path) -> int:
    """The optimizer step in a checkpoint's name: 1234 of step-00001234.ckpt."""
    match = _FILE_NAME.fullmatch(Path(path).name)
    if match is None:
        raise ValueError(f"{path}: not named step-<number>.ckpt")
    return int(match.group(1))


def latest_checkpoint(folder: str | Path) -> Path | None:
    """The newest checkpoint of a run folder that verifies, None if there is none. Names damaged ones in one line."""
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
    """The file meant by `checkpoint=<file or run folder>`, verified; of a folder, the last one of the run.

    Raises:
        ValueError: when there is none, or the last one is damaged or missing while an older one is there. Whoever wants
            the older one names its file.
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
    """The step of the last checkpoint according to the run's results, 0 if they do not say."""
    try:
        return int(results.read_results(folder).get("checkpoint_step", 0))
    except (OSError, ValueError):  # no results, or damaged ones: the files speak for themselves
        return 0


class SafeCheckpointIO(CheckpointIO):
    """Writes a checkpoint whole or not at all, and reads only sound ones.

    The stock plugin stages in $TMPDIR and then copies over the old file, so that a kill between two devices costs the
    good checkpoint. Here the file is streamed beside its destination, flushed to disk, read back, and renamed.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Raises `CheckpointNotWritten` if the disk fails, `DamagedCheckpoint` if the contents are not plain values."""
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
            os.fsync(descriptor)  # the rename survives a power cut too
            os.close(descriptor)
        except (OSError, RuntimeError, zipfile.BadZipFile) as error:
            cause = error.__context__ or error  # torch raises RuntimeError while it handles the disk's own error
            raise CheckpointNotWritten(f"{path} could not be written: {cause}. Older checkpoints are kept.") from error
        finally:
            part.unlink(missing_ok=True)

    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Raises `DamagedCheckpoint`. `weights_only` is Lightning's to pass and always on, whatever it says."""
        return load_checkpoint(path, "cpu" if map_location is None else map_location)

    def remove_checkpoint(self, path: str | Path) -> None:
        """Deletes a checkpoint, if it is there."""
        Path(path).unlink(missing_ok=True)


def list_checkpoints(folder: str | Path) -> list[Path]:
    """The checkpoints of a run folder, or of its folder `checkpoints`, oldest first."""
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
    """The first record of the archive that is not what was written, None if all are sound."""
    with zipfile.ZipFile(path) as archive:
        folders = [record.filename for record in archive.infolist() if record.external_attr & 0x10]
        return folders[0] if folders else archive.testzip()  # torch takes a folder's bytes from nowhere


def _unpickle(path: Path, map_location: Any, mmap: bool) -> dict[str, Any]:
    """With `mmap` the tensors' bytes are not read until used."""
    remedy = "Give a checkpoint written by a training run."
    try:
        contents = torch.load(path, map_location=map_location, weights_only=True, mmap=mmap)
    except pickle.UnpicklingError as error:
        reason = f"more than tensors and plain values inside ({str(error).splitlines()[0]})"
        advice = "Keep hyperparameters to numbers, strings, lists and dicts; do not trust strangers' files."
        raise DamagedCheckpoint(path, reason, advice) from error
    except (RuntimeError, ValueError) as error:
        raise DamagedCheckpoint(path, f"not written by torch.save ({str(error).splitlines()[0]})", remedy) from error
    if not isinstance(contents, dict):
        raise DamagedCheckpoint(path, "not a checkpoint", remedy)
    return contents


def load_encoder(backbone: nn.Module, checkpoint: str) -> None:
    """Starts `backbone` from the encoder that a run kept, given as its folder or a checkpoint file.

    Raises:
        ValueError: when there is no such checkpoint or it holds another architecture.
    """
    path = checkpoints.resolve_checkpoint(checkpoint)
    saved = checkpoints.load_checkpoint(path)
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
