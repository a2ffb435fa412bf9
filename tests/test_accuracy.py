"""benchmarks/accuracy.py: which recorded runs make a row of the tables."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import accuracy

COMMAND = "experiment=table_images method=simclr"


@pytest.fixture
def record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(accuracy, "RECORD", tmp_path / "accuracy.jsonl")
    monkeypatch.setattr(accuracy, "TABLE", tmp_path / "accuracy.md")
    monkeypatch.setattr(accuracy, "README", tmp_path / "README.md")
    return tmp_path / "accuracy.jsonl"


def add(record: Path, recipe: str, knn: float, seed: int = 0) -> None:
    run: dict[str, Any] = {"row": "simclr", "command": COMMAND, "recipe": recipe, "seed": seed}
    run |= {"metrics": {"knn/top1": knn, "init/knn/top1": 0.3}, "examples_per_second": 600.0, "threads": 1}
    run |= {"date": "2026-11-25", "environment": {"device": "x86_64 2 cores", "precision": "bf16-mixed"}}
    with record.open("a") as file:
        file.write(json.dumps(run) + "\n")


def test_runs_of_the_current_configuration_make_the_row(record: Path) -> None:
    current = accuracy.recipe(COMMAND)
    add(record, current, 0.41)
    add(record, current, 0.43, seed=1)
    add(record, "another", 0.9)
    (row,) = accuracy.measured()
    assert (row.label, len(row.runs)) == ("simclr", 2)
    assert row.scores == ["42.0 (30.1 to 55.0)", "30.0 ± 0.0", "", ""]
    assert accuracy.OUTDATED not in accuracy.table()
    assert "| simclr | 42.0 (30.1 to 55.0) | 30.0 |  |  |" in accuracy.short_table()


def test_runs_of_an_earlier_configuration_are_marked(record: Path) -> None:
    add(record, "earliest", 0.9)
    add(record, "earlier", 0.41)
    (row,) = accuracy.measured()
    assert row.label == f"simclr {accuracy.OUTDATED}"
    assert row.scores[0] == "41.0"
    assert "before the configuration" in accuracy.table()
    assert "before the configuration" in accuracy.short_table()


@pytest.mark.parametrize("method", ["dino", "ibot", "dinov2"])
def test_a_renamed_key_is_the_same_configuration(method: str) -> None:
    """These rows were measured when the three keys of the teacher's temperature were one list."""
    (row,) = [row for row in accuracy.measured() if row.name == method]
    assert row.is_current
    changed = accuracy.with_joined_keys({"teacher_temperature": 0.04})
    assert changed == {"teacher_temperature": 0.04}  # ReSSL's, which was never a list


def test_tables_are_written_to_their_places(record: Path) -> None:
    add(record, accuracy.recipe(COMMAND), 0.41)
    accuracy.README.write_text(f"before\n{accuracy.MARK}\nold\n{accuracy.MARK}\nafter\n")
    accuracy.publish()
    assert accuracy.TABLE.read_text() == accuracy.table()
    shown = accuracy.README.read_text()
    assert shown == f"before\n{accuracy.MARK}\n{accuracy.short_table()}{accuracy.MARK}\nafter\n"


def test_nothing_measured(record: Path) -> None:
    assert accuracy.table() == "Nothing measured yet.\n"


def test_rows_of_the_readme_exist() -> None:
    assert set(accuracy.IN_README) <= {name for name, _ in accuracy.rows([])}
    assert len(accuracy.IN_README) == 12
