"""Run folders: which run owns one, what may differ when a run is resumed, and what is written at the start."""

import json
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock, Timeout

from ssl_zoo.config import dotted_keys
from ssl_zoo.report import results
from ssl_zoo.training import cluster, moved

log = logging.getLogger(__name__)

CONFIG_NAME = "config.json"
RUN_FILES = (CONFIG_NAME, results.RESULTS_NAME, results.OUTCOMES_NAME, "metrics.jsonl", "tokenizer.json")
"""Files that a run writes into its folder, besides checkpoints."""
MAY_DIFFER = (
    "backbone.grad_checkpointing", "budget", "data.num_workers", "data.path", "data.root", "data.store",
    "evaluation_views", "evaluators", "finetune.", "half", "logger", "map.", "name", "neighbours.", "objective",
    "trainer.accelerator", "trainer.callbacks", "trainer.channels_last", "trainer.checkpoint_every", "trainer.compile",
    "trainer.devices", "trainer.evaluate_before", "trainer.evaluate_every", "trainer.grad_cache",
    "trainer.log_every_n_steps", "trainer.num_nodes", "trainer.on_collapse", "trainer.plugins", "trainer.precision",
    "trainer.profile", "trainer.requeue", "trainer.strategy",
)  # fmt: skip
"""Prefixes of keys that may differ when a run is resumed: the order of the data and the views stay the same, or only
other tasks read the key.

Data in another place must have the same content and a new budget must be larger (see
`tasks.pretrain.check_budget_left`); `resume_differences` reports what changes."""
MORE_TO_DO = ("budget", "evaluators")
"""Those of them that give a completed run more work."""


class FolderTaken(ValueError):
    """The run folder holds a run with other settings, or one that cannot be resumed; nothing in it was changed."""


class FolderState(NamedTuple):
    """The state of a run folder.

    Attributes:
        checkpoint: the checkpoint to resume from, None if there is none.
        record: the results of the run, {} if there are none.
        changed: keys that differ and are allowed to, with the new and the old value.
    """

    checkpoint: Path | None
    record: dict[str, Any]
    changed: dict[str, tuple[Any, Any]]

    @property
    def is_over(self) -> bool:
        """Whether the run is complete, its last checkpoint is intact, and the configuration requests nothing more."""
        from ssl_zoo.training.checkpoints import step_of

        if self.checkpoint is not None and step_of(self.checkpoint) < self.record.get("checkpoint_step", 0):
            return False
        return self.record.get("status") == "completed" and not any(k.startswith(MORE_TO_DO) for k in self.changed)


def inspect_folder(folder: Path, config: Mapping[str, Any]) -> FolderState:
    """Determines whether a run with `config` can start or resume in a folder, without writing anything.

    The state is empty for a new folder, and also after a run that ended before its first checkpoint: any configuration
    may then use the folder.

    Raises:
        FolderTaken: if the folder holds a run with another configuration (the message names each key that differs), if
            all its checkpoints are damaged, if its results are damaged and there is no checkpoint, or if a folder has
            the name of one of the files.
    """
    from ssl_zoo.training import checkpoints

    # Is there an undamaged checkpoint to resume from?
    weights = checkpoints.list_checkpoints(folder)
    for path in (*(folder / name for name in RUN_FILES), *weights):
        if path.is_dir():
            raise FolderTaken(
                f"hydra.run.dir={folder}: {path.name} there is a folder, and a run keeps a file of that name. "
                "Delete it to go on with the run, or give another folder"
            )
    newest, record = checkpoints.latest_checkpoint(folder), _read_record(folder)
    if weights and newest is None:
        raise FolderTaken(
            f"hydra.run.dir={folder}: all {len(weights)} checkpoints of the run there are damaged, the newest is "
            f"{weights[-1].name}, so it cannot go on, and nothing was changed. Put back a copy, delete its folder "
            "checkpoints to start again, or give another folder"
        )
    if newest is None and record.get("status") != "completed":
        if record.get("status") == "damaged":
            raise FolderTaken(
                f"hydra.run.dir={folder}: {record['why']}, and there is no checkpoint to make it from again. "
                "Delete it to start again, or give another folder"
            )
        return FolderState(None, {}, {})
    # Does the configuration differ only in keys that may differ?
    before = dotted_keys(moved.with_resolved_views(moved.with_current_names(_read_config(folder, newest))))
    now = dotted_keys(moved.with_resolved_views(dict(config)))
    before = {key: value for key, value in moved.ADDED_KEYS.items() if key in now} | before
    different = {
        key: (now.get(key), before.get(key))
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key) and not isinstance(before.get(key, now.get(key)), dict)
    }
    if others := [key for key in different if not key.startswith(MAY_DIFFER)]:
        listed = ", ".join(f"{key}={different[key][0]} (was {different[key][1]})" for key in others)
        raise FolderTaken(
            f"hydra.run.dir={folder} holds a run with other settings: {listed}. "
            "Give the same settings to resume it, or another hydra.run.dir"
        )
    return FolderState(newest, record, different)


def recorded_config(folder: Path) -> dict[str, Any] | None:
    """The configuration of the run that would go on in `folder`; None if there is none, or it cannot be read."""
    from ssl_zoo.training import checkpoints

    weights = checkpoints.list_checkpoints(folder)
    try:
        if not weights and results.read_results(folder).get("status") != "completed":
            return None
        config = json.loads((folder / CONFIG_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):  # `inspect_folder` names what is wrong
        newest = checkpoints.latest_checkpoint(folder)
        config = checkpoints.stored_card(newest).get("config") if newest else None
    return config if isinstance(config, dict) else None


def _read_record(folder: Path) -> dict[str, Any]:
    """Returns the results in the folder; status "damaged" and `why` if they cannot be read."""
    try:
        return results.read_results(folder)
    except FileNotFoundError:
        return {}
    except ValueError as error:
        log.warning("%s; it is written again at the end of the run", error)
        return {"status": "damaged", "why": str(error)}


def _read_config(folder: Path, newest: Path | None) -> dict[str, Any]:
    """Returns the configuration of the run in the folder, from its file or from the copy in the newest checkpoint."""
    from ssl_zoo.training import checkpoints

    try:
        config = json.loads((folder / CONFIG_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        config = checkpoints.stored_card(newest).get("config") if newest else None
        where = (
            f"the settings inside {newest.name} are used" if newest and config else "no checkpoint contains it either"
        )
        log.warning("%s cannot be read (%s): %s", folder / CONFIG_NAME, error, where)
    if not isinstance(config, dict):
        raise FolderTaken(
            f"hydra.run.dir={folder} holds a run whose settings are lost: {CONFIG_NAME} is missing or damaged. "
            "Put it back, or give another folder"
        )
    return config


def claim_run_folder(folder: Path, found: FolderState, config: Mapping[str, Any], record: dict[str, Any]) -> None:
    """Writes the configuration of this run and its first results into the folder.

    If the folder holds a completed run that is extended, its results are renamed to `results-step-<number>.json`.
    """
    if found.record.get("status") == "completed":
        step = found.record.get("checkpoint_step", found.record["budget"].get("steps", 0))
        os.replace(folder / results.RESULTS_NAME, folder / f"results-step-{step:08d}.json")
    results.write_json(folder / CONFIG_NAME, dict(config))
    results.write_results(folder, record)


def may_record(folder: Path) -> bool:
    """Whether this process may write results to the folder: it holds no other run.

    If several processes of one run fail, only the first one records its error.
    """
    try:
        found = results.read_results(folder)
    except FileNotFoundError:
        found = {"status": "none"}
    except (OSError, ValueError):
        found = {"status": "damaged"}
    status = found["status"]
    if status != "damaged" and found.get("run_id") == os.environ["SSL_ZOO_RUN_ID"]:
        return status != "completed" and not (cluster.started_processes() > 1 and status == "failed")
    has_weights = any((folder / "checkpoints").glob("step-*.ckpt"))
    return status in ("none", "failed", "interrupted") and not has_weights


@contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Context manager that locks the folder against other runs; rank 0 does so for all processes of a run.

    Raises:
        FolderTaken: if another run holds the lock.
        ValueError: if the lock file cannot be opened; symbolic links are not followed.
    """
    from lightning.pytorch.utilities import rank_zero_only

    if rank_zero_only.rank:  # type: ignore[attr-defined]
        yield
        return
    lock = folder / ".lock"
    is_new = not lock.exists()
    try:
        held = FileLock(lock).acquire(timeout=0)
    except Timeout:
        raise FolderTaken(
            f"hydra.run.dir={folder}: another run is at work there. Wait for its end, or give another folder"
        ) from None
    except OSError as error:
        raise ValueError(f"hydra.run.dir={folder}: its file .lock cannot be opened ({error}). Delete it") from error
    with held:
        try:
            yield
        except Exception:  # Hydra wraps what a part raises in an exception of its own
            if is_new:  # a rejected command leaves no files
                lock.unlink(missing_ok=True)
            raise


def resume_differences(before: Mapping[str, Any], now: Mapping[str, Any], found: FolderState) -> list[str]:
    """Lists what makes a resumed run differ from an uninterrupted one, one sentence per difference.

    Args:
        before: precision, processes, device and torch version of the earlier session.
        now: the same for this session.
        found: the state of the folder.

    Returns:
        An empty list if the resumed run is bit-equal.
    """
    same = "batches, views and masks stay the same, rounding does not"
    meaning = {
        "precision": same,
        "device": same,
        "torch": same,
        "processes": "batches and views stay the same; masks and dropout are sampled per process, and rounding differs",
    }
    lines = [
        f"{key}: {now[key]}, before {before[key]}: {effect}"
        for key, effect in meaning.items()
        if key in before and before[key] != now[key]
    ]
    budget = [f"{key}={new} (was {old})" for key, (new, old) in found.changed.items() if key.startswith("budget")]
    if budget:
        lines.append(f"{', '.join(budget)}: batches and views stay the same, all schedules follow the new budget now")
    if lines:
        lines.append("so the result is not bit for bit that of a run without an interruption")
    return lines


def data_differences(resume: Path, content: str, found: FolderState) -> list[str]:
    """Returns a warning if the data has changed since the run started.

    Args:
        resume: the checkpoint to resume from.
        content: hash of the current data, see `ImageData.content`.
        found: the state of the folder.

    Raises:
        FolderTaken: if the data is in another place and cannot be shown to be the same.
    """
    from ssl_zoo.training import checkpoints

    if checkpoints.stored_card(resume).get("content", content) == content:
        return []
    if elsewhere := [f"{key}={found.changed[key][0]}" for key in ("data.path", "data.root") if key in found.changed]:
        raise FolderTaken(
            f"{', '.join(elsewhere)}: this is not the data that the run in {resume.parent.parent} began with, or not an"
            " exact copy (files of more than 1 GB in all are known by name, size and time). Give the data of before or "
            "another hydra.run.dir"
        )
    return ["data: its files have changed since the run began, so the rest of the run learns from other data"]
