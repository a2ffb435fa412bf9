"""Sections stand in the page and in Markdown, with the same numbers."""

from pathlib import Path

from ssl_zoo.report.report import compare_folders
from ssl_zoo.report.sections import make_sections
from ssl_zoo.report.series import make_series
from ssl_zoo.report.tables import to_markdown
from tests.report.records import save_run, save_sweep


def test_without_data_there_is_none(tmp_path: Path) -> None:
    save_run(tmp_path / "a", "simclr", 0)
    comparison = compare_folders(tmp_path).comparison
    assert make_sections(comparison, make_series(comparison)) == []


def test_markdown_has_them(tmp_path: Path) -> None:
    save_sweep(tmp_path, 3)
    comparison = compare_folders(tmp_path).comparison
    text = to_markdown(comparison)
    for section in make_sections(comparison, make_series(comparison)):
        assert f"## {section.title}\n" in text
        for board in section.boards:
            assert all(f" {line.cells[1].text} " in text for line in board.lines)
