"""Handles runs that do not complete: what is recorded and printed, and the exit status."""

import errno
import sys
import traceback
from pathlib import Path
from typing import Any

from hydra.errors import InstantiationException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from ssl_zoo.config import CONF, Run, explain
from ssl_zoo.report import results
from ssl_zoo.training import run_folder, transcript
from ssl_zoo.training.credentials import masked_text


def record_ending(cfg: DictConfig, folder: Path, status: str, **known: Any) -> None:
    """Writes the results of a run that did not complete, unless the folder belongs to another run.

    If the disk refuses the file, a line is printed to stderr and the exit status does not change.
    """
    try:
        if run_folder.may_record(folder):
            results.write_results(folder, results.empty_results(status, **Run.of(cfg).record(), **known))
    except OSError as error:
        print(f"error: {folder / results.RESULTS_NAME} could not be written: {error}", file=sys.stderr)


def root_cause(error: Exception) -> BaseException:
    """Returns the exception that a component raised, unwrapped from Hydra's InstantiationException.

    A missing or unknown argument is a mistake in the configuration and becomes a ValueError.
    """
    if not isinstance(error, InstantiationException) or error.__cause__ is None:
        return error
    inner, key = error.__cause__, str(error).rpartition("full_key: ")[2].strip()
    if isinstance(inner, TypeError) and "argument" in str(inner):
        return ValueError(f"{key}: {inner}. Leave that key out, or see conf/ for those there are")
    return inner


def handle_failure(cfg: DictConfig, folder: Path, error: BaseException) -> int:
    """Records a failed run and prints the reason; returns the exit status.

    A traceback is printed only for errors that are not mistakes of the user. A run that could not save its last
    checkpoint has status `interrupted`: the same command finishes it once there is room.
    """
    if run_folder.may_record(folder) and not cfg.data.get("check"):
        transcript.write_transcript(folder)
    mistake = isinstance(error, ValueError | ImportError | FileNotFoundError | OmegaConfBaseException)
    if not mistake and not _is_full(error) and not type(error).__module__.startswith("ssl_zoo"):
        print(masked_text("".join(traceback.format_exception(error))), file=sys.stderr)
    message = explain(error, CONF) if isinstance(error, OmegaConfBaseException) else error or type(error).__name__
    print(f"error: {masked_text(str(message))}", file=sys.stderr)  # first, because a full disk may refuse the record
    record_failure(cfg, folder, error)
    return 2 if mistake else 1


def record_failure(cfg: DictConfig, folder: Path, error: BaseException) -> None:
    """Writes the results of a training that failed; one that the disk kept from saving is only interrupted."""
    if cfg.task != "pretrain" or cfg.data.get("check"):
        return
    trace = masked_text("".join(traceback.format_exception(error)))
    details = {"type": type(error).__name__, "message": masked_text(str(error)), "traceback": trace}
    unsaved = _is_full(error) or type(error).__name__ == "CheckpointNotWritten"
    record_ending(cfg, folder, "interrupted" if unsaved else "failed", error=details)


def _is_full(error: BaseException) -> bool:
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
