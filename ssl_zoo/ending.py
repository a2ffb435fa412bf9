"""How a run ends that does not complete: what is recorded of it, what is said, the exit status."""

import errno
import os
import sys
import traceback
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.errors import InstantiationException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ssl_zoo import results, run_folder, transcript
from ssl_zoo.build import CONF
from ssl_zoo.credentials import masked, masked_text
from ssl_zoo.overrides import explain


def outline(cfg: DictConfig) -> dict[str, Any]:
    """What identifies a run in tables: the names of its parts, its seed, its configuration."""
    choices = HydraConfig.get().runtime.choices
    config = OmegaConf.to_container(cfg)
    assert isinstance(config, dict)
    config.pop("facts")
    known = {
        "experiment": cfg.name or choices.get("experiment"),
        "method": choices["method"],
        "backbone": cfg.backbone.get("name", choices["backbone"]),
        "data": choices["data"],
        "seed": cfg.seed if isinstance(cfg.seed, int) else None,
        "run_id": os.environ["SSL_ZOO_RUN_ID"],
        "overrides": [str(o) for o in HydraConfig.get().overrides.task],
        "config": config,
    }
    return {key: masked(value) for key, value in known.items()}


def record(cfg: DictConfig, folder: Path, status: str, **known: Any) -> None:
    """Writes what is known of a run that did not complete, unless the folder is another's. A disk that refuses it costs
    a line, no exit status."""
    try:
        if run_folder.may_record(folder):
            results.write(folder, results.blank(status, **outline(cfg), **known))
    except OSError as error:
        print(f"error: {folder / results.NAME} could not be written: {error}", file=sys.stderr)


def cause(error: Exception) -> BaseException:
    """What a part raised, which lies inside Hydra's own exception; that it lacks an argument or does not know one is
    the user's mistake."""
    if not isinstance(error, InstantiationException) or error.__cause__ is None:
        return error
    inner, key = error.__cause__, str(error).rpartition("full_key: ")[2].strip()
    if isinstance(inner, TypeError) and "argument" in str(inner):
        return ValueError(f"{key}: {inner}. Leave that key out, or see conf/ for those there are")
    return inner


def fail(cfg: DictConfig, folder: Path, error: BaseException) -> int:
    """Records a failed run and says why; returns the exit status. A traceback is for what is not a user's mistake.

    A run whose last weights could not be saved is `interrupted`: the same command finishes it once there is room.
    """
    if run_folder.may_record(folder):
        transcript.begin(folder)
    mistake = isinstance(error, ValueError | ImportError | FileNotFoundError | OmegaConfBaseException)
    is_full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    trace = masked_text("".join(traceback.format_exception(error)))
    if not mistake and not is_full and not type(error).__module__.startswith("ssl_zoo"):
        print(trace, file=sys.stderr)
    said = explain(error, CONF) if isinstance(error, OmegaConfBaseException) else error or type(error).__name__
    print(f"error: {masked_text(str(said))}", file=sys.stderr)  # before the record, which a full disk may refuse
    if cfg.task == "pretrain":
        told = {"type": type(error).__name__, "message": masked_text(str(error)), "traceback": trace}
        unsaved = is_full or type(error).__name__ == "CheckpointNotWritten"
        record(cfg, folder, "interrupted" if unsaved else "failed", error=told)
    return 2 if mistake else 1
