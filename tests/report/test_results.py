"""The contract of results.json: what is written is read back, nothing half, nothing that breaks the schema."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ssl_zoo.report import results


def completed(**changes: Any) -> dict[str, Any]:
    told = {"method": "simclr", "backbone": "resnet18", "data": "digits", "seed": 0}
    return results.empty_results("completed", **told, budget={"kind": "epochs", "value": 2}, **changes)


def test_what_is_written_is_read_from_folder_and_file(tmp_path: Path) -> None:
    told = completed(metrics={"knn/top1": 0.5}, run_id="4f2a", overrides=["seed=0"])
    path = results.write_results(tmp_path, told)
    assert results.read_results(tmp_path) == results.read_results(path) == told
    assert [file.name for file in tmp_path.iterdir()] == ["results.json"]  # no temporary file is left


def test_not_a_number_is_null_and_its_key_is_kept(tmp_path: Path) -> None:
    told = completed(
        metrics={"knn/top1": float("nan"), "mask/perplexity": float("inf")}, config={"a": [float("-inf"), 1]}
    )
    read = json.loads(results.write_results(tmp_path, told).read_text(), parse_constant=pytest.fail)
    assert read["metrics"] == {"knn/top1": None, "mask/perplexity": None}
    assert read["config"] == {"a": [None, 1]}


def test_a_crash_while_writing_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results.write_results(tmp_path, completed(run_id="old"))

    def crash(_: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", crash)
    with pytest.raises(OSError, match="disk full"):
        results.write_results(tmp_path, completed(run_id="new"))
    assert results.read_results(tmp_path)["run_id"] == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["results.json"]


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"schema": 2}, "schema=2"),
        ({"status": "finished"}, "status='finished'"),
        ({"method": None}, "method=None"),
        ({"data": 3}, "data=3"),
        ({"seed": 0.5}, "seed=0.5"),
        ({"seed": True}, "seed=True"),
        ({"metrics": []}, r"metrics=\[\]"),
        ({"metrics": {"knn/top1": "0.9"}}, "metrics.knn/top1='0.9'"),
        ({"speed": {"examples_per_second": None, "peak_memory_bytes": True}}, "speed.peak_memory_bytes=True"),
        ({"budget": {"value": 2}}, "budget.kind=None"),
        ({"budget": {"kind": "hours", "value": 2}}, "budget.kind='hours'"),
        ({"budget": {"kind": "epochs", "value": None}}, "budget.value=None"),
        ({"counts": [400]}, r"counts=\[400\]"),
        ({"counts": {"knn/top1": 0}}, "counts.knn/top1=0"),
        ({"overrides": "seed=0"}, "overrides='seed=0'"),
        ({"status": "failed"}, "error=None"),
        ({"status": "failed", "error": {"type": "ValueError"}}, "error.message=None"),
    ],
)
def test_a_broken_field_is_named(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(ValueError, match=f"^{field}: should be "):
        results.validate_results(completed() | changes)


@pytest.mark.parametrize("key", sorted(completed()))
def test_a_missing_field_is_named(key: str) -> None:
    told = completed()
    del told[key]
    with pytest.raises(ValueError, match=f"^{key}: missing"):
        results.validate_results(told)


@pytest.mark.parametrize("status", ["running", "interrupted", "failed"])
def test_a_run_that_is_not_completed_may_know_nothing(status: str, tmp_path: Path) -> None:
    error = {"error": {"type": "RuntimeError", "message": ""}} if status == "failed" else {}
    assert (
        results.read_results(results.write_results(tmp_path, results.empty_results(status, **error)))["method"] is None
    )


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"schema": 1}', "\x00"])
def test_a_file_that_is_no_results_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text(text)
    with pytest.raises(ValueError, match=r"results\.json: "):
        results.read_results(tmp_path)


@pytest.mark.parametrize("step", [-1, 0.5, True, "7"])
def test_the_step_of_the_checkpoint_is_a_count(step: Any) -> None:
    with pytest.raises(ValueError, match=r"^checkpoint_step=.*a whole number of at least 0"):
        results.validate_results(completed() | {"checkpoint_step": step})


def test_damaged_results_are_not_complete(tmp_path: Path) -> None:
    results.write_results(tmp_path, completed())
    assert results.is_complete(tmp_path)
    (tmp_path / "results.json").write_text('{"status": "completed"')
    assert not results.is_complete(tmp_path)
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert not results.is_complete(tmp_path / "loop")


def test_no_file_is_file_not_found(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        results.read_results(tmp_path)


def test_reading_needs_the_standard_library_only() -> None:
    code = (
        "import sys, ssl_zoo.report.results; print(sorted({'torch', 'numpy', 'pandas', 'hydra'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_a_run_is_complete_when_its_results_say_so(tmp_path: Path) -> None:
    assert not results.is_complete(tmp_path)
    results.write_results(tmp_path, results.empty_results("interrupted"))
    assert not results.is_complete(tmp_path)
