"""The table of ranks has the numbers, and nothing where a set was not measured."""

from pathlib import Path

from ssl_zoo.report.board import to_lines
from ssl_zoo.report.rank_view import rank_section
from ssl_zoo.report.report import compare_folders
from ssl_zoo.report.series import make_series
from tests.report.records import save_run


def test_the_table(tmp_path: Path) -> None:
    sets = {"transfer/digits/top1": 0.9, "transfer/cifar10/top1": 0.5}
    save_run(tmp_path / "a", "simclr", 0, metrics=sets | {"transfer/stl10/top1": 0.7})
    save_run(tmp_path / "b", "byol", 0, metrics=dict.fromkeys(sets, 0.6))
    comparison = compare_folders(tmp_path).comparison
    section = rank_section(comparison, make_series(comparison))
    assert section is not None
    (board,) = section.boards
    head, *lines = to_lines(board)
    assert head == ["row", "mean rank", "digits %", "cifar10 %", "stl10 %"]
    cells = {line[0].partition(" ")[0]: line[1:] for line in lines}
    assert cells["simclr"] == ["1.50", "90.0 (rank 1)", "50.0 (rank 2)", "70.0 (rank 1)"]
    assert cells["byol"] == ["1.50", "60.0 (rank 2)", "60.0 (rank 1)", ""]
    assert any("stl10 is not in the mean rank" in note and "byol" in note for note in section.notes)


def test_without_several_sets_there_is_none(tmp_path: Path) -> None:
    save_run(tmp_path / "a", "simclr", 0)
    comparison = compare_folders(tmp_path).comparison
    assert rank_section(comparison, make_series(comparison)) is None
