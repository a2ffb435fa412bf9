"""Classes are shown with their numbers, those that differ most where there are many, and all of them as CSV."""

import csv
import io
import json
from pathlib import Path

import pytest

from ssl_zoo.report.class_view import MAX_SHOWN, class_figure, class_section, classes_csv
from ssl_zoo.report.comparison import Comparison
from ssl_zoo.report.report import compare_folders
from ssl_zoo.report.series import make_series
from tests.report.records import CLASSES, save_outcomes, save_run


def sweep(folder: Path, classes: list[str], labelled: bool = True) -> Comparison:
    for number, method in enumerate(("simclr", "byol")):
        for seed in range(3):
            save_run(folder / f"{method}{seed}", method, seed)
            save_outcomes(folder / f"{method}{seed}", 10 * number + seed, labelled, classes)
    return compare_folders(folder, baseline="simclr").comparison


def test_many_classes_are_bounded_and_the_file_has_all(tmp_path: Path) -> None:
    names = [f"a class with a very long name, number {number}" for number in range(50)]
    comparison = sweep(tmp_path, names)
    series = make_series(comparison)
    section, figure = class_section(comparison, series), class_figure(comparison, series)
    assert section is not None
    assert figure is not None
    (board,) = section.boards
    assert [len(line.cells) for line in board.lines] == [1 + MAX_SHOWN] * 2
    assert any(f"{MAX_SHOWN} of 50 classes" in note for note in section.notes)
    values = figure.spec["data"]["values"]
    assert len({value["class"] for value in values}) == MAX_SHOWN
    assert max(len(value["class"]) for value in values) < 20
    (table,), _ = comparison.classes
    gaps = abs(table.accuracies[0] - table.accuracies[1])
    assert min(gaps[table.order[:MAX_SHOWN]]) >= max(gaps[table.order[MAX_SHOWN:]])
    lines = list(csv.DictReader(io.StringIO(classes_csv(comparison) or "")))
    assert len(lines) == 2 * 50
    assert [line["class"] for line in lines[:50]] == names
    of_row = next(place for place, its in enumerate(table.differences) if its)
    line = lines[50 * of_row + 7]
    assert float(line["accuracy"]) == table.accuracies[of_row][7]
    assert float(line["difference"]) == table.differences[of_row][7].mean
    assert (line["examples"], line["runs"]) == ("20", "3")


def test_the_cells_are_the_numbers(tmp_path: Path) -> None:
    comparison = sweep(tmp_path, CLASSES)
    section = class_section(comparison, make_series(comparison))
    assert section is not None
    (board,), ((table,), _) = section.boards, comparison.classes
    assert [column.name for column in board.columns[1:]] == [CLASSES[number] for number in table.order]
    place = next(place for place, its in enumerate(table.differences) if its)
    cell, found = board.lines[place].cells[1], table.differences[place][table.order[0]]
    assert cell.text == f"{100 * table.accuracies[place][table.order[0]]:.1f}"
    assert cell.small.replace("\u2212", "-").rstrip(" *") == f"{100 * found.mean:+.1f}"
    assert [line.badge for line in board.lines].count("baseline") == 1


@pytest.mark.parametrize("kept", [True, False])
def test_runs_that_lack_labels_say_so(kept: bool, tmp_path: Path) -> None:
    comparison = sweep(tmp_path, CLASSES, labelled=False)
    if not kept:
        for file in tmp_path.glob("*/correct.npz"):
            file.unlink()
        comparison = compare_folders(tmp_path).comparison
    section = class_section(comparison, make_series(comparison))
    assert class_figure(comparison, make_series(comparison)) is None
    assert classes_csv(comparison) is None
    assert (section is not None) == kept
    assert section is None or "task=evaluate encoder=<run folder>" in section.notes[0]
    assert json.loads((tmp_path / "byol0" / "results.json").read_text())["metrics"]
