"""results.json: the interface between a run and everything that reads it.

    {"schema": 1,
     "status": "completed",           running (or killed) | completed | failed | interrupted
     "experiment": null, "method": "simclr", "backbone": "resnet18", "data": "cifar10",      names, null if unknown
     "seed": 0,                       whole number, null if unknown
     "budget": {"kind": "epochs", "value": 100, "steps": 19500, "examples": 4992000, "flops": 8.3e15, "seconds": 512.4},
     "metrics": {"knn/top1": 0.871, "init/knn/top1": 0.312},         accuracies are fractions; init/ is before training
     "counts": {"knn/top1": 10000},                                  optional: test examples of accuracies, correlations
     "speed": {"examples_per_second": 971.0, "peak_memory_bytes": 1300000000, "seconds_to_first_step": 8.1},
     "environment": {"torch": "2.11.0", "device": "cpu", "precision": "bf16-mixed", "git": "1a2b3c"},
     "config": {"method": {"temperature": 0.2}},
     "checkpoint_step": 19500,        optional: the optimizer step of the run's last checkpoint
     "data_content": "5e1f...",       optional: sha256 of what identifies the content of the data
     "evaluations": [{"when": "2026-11-28T10:15:00", "command": "...", "metrics": ["knn/top1"]}],
                                      optional: metrics that `task=evaluate` has added or replaced since
     "confusion": {"classes": ["cat", "dog"], "finetuned": [[9, 1], [2, 8]]},
                                      optional: of `task=finetune`, test examples by [class][predicted class]
     "collapse": {"what": "rank", "since": 9000},                    optional: what had collapsed at the end, and the
                                      optimizer step of its first sign; see `ssl_zoo.evaluators.collapse`
     "overrides": ["method=simclr", "seed=0"],                       optional: the words on the command line
     "error": {"type": "ValueError", "message": "...", "traceback": "..."}}          of a failed run; traceback optional

All other keys are always present; a run that is not completed may have empty objects and null names.
`budget.kind` is one of `BUDGET_KINDS`; every completed run has a kind and a value. All metrics are of the last epoch.
JSON has no NaN or infinity: such a number is written as null and its key kept, which shows that the metric was measured
but not finite. Additional keys (`run_id`, `started`, `finished`) are allowed. Adding a key does not change the schema
number; removing one or changing its meaning does.

Only the standard library is imported, so that results can be read without importing torch.
"""

import json
import math
from pathlib import Path
from typing import Any

from ssl_zoo import files

SCHEMA = 1
RESULTS_NAME = "results.json"
OUTCOMES_NAME = "correct.npz"
"""The file beside it that says which test examples were right, see `ssl_zoo.report.outcomes`."""
STATUSES = ("running", "completed", "failed", "interrupted")
BUDGET_KINDS = ("epochs", "steps", "examples", "flops", "minutes")

MAX_MAGNITUDE = 1e100
"""Upper limit for the absolute value of every number, so that sums and squares are finite."""

_NAMES = ("experiment", "method", "backbone", "data")
_OBJECTS = ("budget", "metrics", "speed", "environment", "config")


def empty_results(status: str, **known: Any) -> dict[str, Any]:
    """Returns results with `status` and the `known` keys; all others are empty or null, as the schema requires."""
    names = dict.fromkeys((*_NAMES, "seed"))
    return {"schema": SCHEMA, "status": status, **names, **{key: {} for key in _OBJECTS}, **known}


def write_results(folder: Path | str, results: dict[str, Any]) -> Path:
    """Writes `results` to `<folder>/results.json` atomically and returns its path.

    Raises:
        ValueError: if `results` violates the schema; names the field.
    """
    validate_results(results)
    path = Path(folder) / RESULTS_NAME
    write_json(path, results)
    return path


def write_json(path: Path | str, value: Any) -> None:
    """Writes `value` atomically as standard JSON, with null for NaN and infinity."""
    files.write_atomically(path, json.dumps(_finite(value), indent=1, allow_nan=False) + "\n")


def read_results(path: Path | str) -> dict[str, Any]:
    """Reads and validates results; `path` is a run folder or the file itself.

    Raises:
        FileNotFoundError: if there are none.
        ValueError: if they cannot be read or violate the schema; names the file and the field.
    """
    path = Path(path)
    if path.is_dir():
        path = path / RESULTS_NAME
    try:
        results = _finite(json.loads(path.read_text(encoding="utf-8")))
        validate_results(results)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    except RecursionError as error:
        raise ValueError(f"{path}: nested too deeply") from error
    return results


def objective_value(folder: Path | str, objective: str | None) -> float | None:
    """Returns the metric `objective` of a completed run, None without one.

    Raises:
        ValueError: if the run has not measured it, or it is not finite.
    """
    if objective is None:
        return None
    metrics = read_results(folder)["metrics"]
    if metrics.get(objective) is None:
        what = "is not finite" if objective in metrics else f"was not measured. There are: {', '.join(sorted(metrics))}"
        raise ValueError(f"objective={objective} {what}")
    return float(metrics[objective])


def is_complete(folder: Path) -> bool:
    """Whether the folder holds readable results of a completed run."""
    try:
        return read_results(folder)["status"] == "completed"
    except (OSError, ValueError):
        return False


def validate_results(results: Any) -> None:
    """Raises ValueError, naming the first field that violates the schema."""
    _check(isinstance(results, dict), "results", results, "an object")
    missing = sorted({"schema", "status", "seed", *_NAMES, *_OBJECTS} - results.keys())
    if missing:
        raise ValueError(f"{missing[0]}: missing")
    _check(results["schema"] == SCHEMA, "schema", results["schema"], f"{SCHEMA}, the schema this ssl_zoo reads")
    status = results["status"]
    _check(status in STATUSES, "status", status, " or ".join(STATUSES))
    for key in _NAMES:
        _check(isinstance(results[key], str | None), key, results[key], "a name or null")
    _check(_is_number(results["seed"], int | None), "seed", results["seed"], "a whole number or null")
    for key in _OBJECTS:
        _check(isinstance(results[key], dict), key, results[key], "an object")
    # The values inside the objects.
    for section in ("metrics", "speed"):
        for key, value in results[section].items():
            _check(_is_number(value, int | float | None), f"{section}.{key}", value, "a number or null")
    step = results.get("checkpoint_step", 0)
    _check(_is_number(step, int) and step >= 0, "checkpoint_step", step, "a whole number of at least 0")
    counts = results.get("counts", {})
    _check(isinstance(counts, dict), "counts", counts, "an object")
    for key, value in counts.items():
        _check(_is_number(value, int) and value > 0, f"counts.{key}", value, "a whole number of at least 1")
    for key, value in results["budget"].items():
        valid = _is_number(value, int | float | None) or key == "kind"
        _check(valid, f"budget.{key}", value, "a number or null")
    # What only some results have.
    overrides = results.get("overrides", [])
    valid = isinstance(overrides, list) and all(isinstance(text, str) for text in overrides)
    _check(valid, "overrides", overrides, "a list of text")
    if status == "completed":
        _check_completed(results)
    if status == "failed" or "error" in results:
        error = results.get("error")
        _check(isinstance(error, dict), "error", error, "an object, for a failed run")
        for key in ("type", "message"):
            _check(isinstance(error.get(key), str), f"error.{key}", error.get(key), "text")


def _check_completed(results: dict[str, Any]) -> None:
    for key in ("method", "data"):
        _check(results[key] is not None, key, None, "a name, for a completed run")
    kind, value = (results["budget"].get(key) for key in ("kind", "value"))
    _check(kind in BUDGET_KINDS, "budget.kind", kind, " or ".join(BUDGET_KINDS))
    _check(_is_number(value, int | float), "budget.value", value, "a number")


def _check(valid: bool, field: str, value: Any, wanted: str) -> None:
    if not valid:
        raise ValueError(f"{field}={value!r}: should be {wanted}")


def _is_number(value: Any, kind: Any) -> bool:
    """Whether `value` has that type and is below `MAX_MAGNITUDE`; NaN and infinity pass, as they become null."""
    if not isinstance(value, kind) or isinstance(value, bool):
        return False
    return value is None or (isinstance(value, float) and not math.isfinite(value)) or abs(value) < MAX_MAGNITUDE


def _finite(value: Any) -> Any:
    """Returns `value` with every NaN and infinity replaced by None, at any depth."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
