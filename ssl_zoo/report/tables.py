"""Reads runs for a comparison, prints it, and formats it as Markdown and as CSV with plain numbers."""

import csv
import io
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ssl_zoo.report import display, results
from ssl_zoo.report.appendix import answer
from ssl_zoo.report.board import to_lines
from ssl_zoo.report.comparison import Comparison
from ssl_zoo.report.estimate import is_accuracy
from ssl_zoo.report.row import COMPUTE, COSTS, NAME_COLUMNS
from ssl_zoo.report.sections import make_sections
from ssl_zoo.report.series import make_series


def load_runs(folders: Iterable[Path | str]) -> list[dict[str, Any]]:
    """Reads the results of all runs in `folders`, recursively.

    Returns:
        The results, each with its "folder"; unreadable ones have status "failed".

    Raises:
        ValueError: if a folder does not exist or there is no run.
    """
    places = [Path(folder) for folder in folders]
    files: list[Path] = []
    for folder in places:
        if not folder.exists():
            raise ValueError(f"{folder}: no such folder. Give run folders, or folders that hold some")
        files += [folder] if folder.is_file() else sorted(folder.rglob(results.RESULTS_NAME))
    if not files:
        where = ", ".join(map(str, places))
        raise ValueError(f"{where}: no {results.RESULTS_NAME} here or below. A run writes it at its end")
    return [{**_read_run(file), "folder": file.parent} for file in {file.resolve(): file for file in files}.values()]


def _read_run(file: Path) -> dict[str, Any]:
    try:
        found = results.read_results(file)
    except (ValueError, OSError) as error:
        found = results.empty_results("failed", error={"type": "unreadable", "message": str(error)})
    return display.to_plain_text(found)


def to_markdown(comparison: Comparison) -> str:
    """Formats the comparison as Markdown: verdicts, table, notes, runs that did not complete, reviewer's appendix."""
    parts = ["# Comparison"]
    parts += ["\n".join(f"- {display.escape_markdown(sentence)}" for sentence in comparison.verdicts)]
    parts += [_markdown(comparison.table(comparison.headlines))] if comparison.rows else []
    parts.append("\n".join(f"- {display.escape_markdown(note)}" for note in comparison.notes))
    for section in make_sections(comparison, make_series(comparison)):
        parts += [f"## {section.title}", "\n".join(f"- {display.escape_markdown(note)}" for note in section.notes)]
        for board in section.boards:
            parts += [f"### {display.escape_markdown(board.caption)}", _markdown(to_lines(board))]
    if comparison.incomplete:
        parts += ["## Not completed", _markdown(comparison.incomplete_table())]
    answers = [[each.item, each.text or "unknown", each.neurips, each.acl] for each in answer(comparison)]
    parts += ["## Reviewer's appendix", _markdown([["item", "answer", "NeurIPS", "ACL"], *answers])]
    return "\n\n".join(part for part in parts if part) + "\n"


def to_csv(comparison: Comparison) -> str:
    """Formats the comparison as CSV with plain numbers.

    For each metric: the mean, half the width and the bounds of its 95 % interval, the number of runs, and for
    accuracies the number of test examples. At the end the difference of the first headline metric to the baseline.
    """
    keys = [*comparison.with_baselines(comparison.metrics), *comparison.present(dict.fromkeys((*COSTS, *COMPUTE)))]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    columns = [f"{key}{suffix}" for key in keys for suffix in ("", " ci95", " low", " high", " n", " examples")]
    columns += [f"difference {name}".rstrip() for name in ("", "low", "high", "p", "p_holm", "effect", "n", "test")]
    writer.writerow([*NAME_COLUMNS, "settings", "seeds", "n", *map(display.escape_spreadsheet, columns)])
    differences = comparison.differences(comparison.headline) if comparison.headline else []
    for row in comparison.rows:
        numbers: list[float | int | None] = []
        for key in keys:
            estimate = row.estimates.get(key)
            if estimate is None:
                numbers += [None, None, None, None, 0, None]
                continue
            ends = estimate.interval(is_accuracy(key))
            low, high, half = (*ends, (ends[1] - ends[0]) / 2) if ends else (None, None, None)
            numbers += [estimate.mean, half, low, high, len(estimate.values), estimate.examples]
        seeds = " ".join(str(seed) for seed in row.seeds)
        names = (display.escape_spreadsheet(row.names[name]) for name in (*NAME_COLUMNS, "settings"))
        found = next((each for each in differences if each.row is row), None)
        fields = (found.mean, found.low, found.high, found.p, found.p_holm, found.effect, found.n) if found else ()
        texts = (found.test,) if found else ()
        writer.writerow([*names, seeds, len(row.seeds), *numbers, *fields, *texts])
    return text.getvalue()


def print_tables(comparison: Comparison) -> None:
    """Prints the short table, the runs that did not complete and the notes."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(width=None if sys.stdout.isatty() else 160)
    tables = {"Not completed": comparison.incomplete_table()}
    if comparison.rows:
        tables = {"Comparison": comparison.table(comparison.headlines), **tables}
    for title, (head, *lines) in tables.items():
        if lines:
            table = Table(title=title)
            for name in head:
                is_number = title == "Comparison" and name not in comparison.varying
                heading = name.replace("/", "/\n") if is_number else name
                table.add_column(Text(heading), justify="right" if is_number else "left", overflow="fold")
            for line in lines:
                table.add_row(*map(Text, line))
            console.print(table)
    for sentence in (*comparison.verdicts, *comparison.notes):
        console.print(Text(sentence))


def _markdown(lines: list[list[str]]) -> str:
    escaped = [[display.escape_markdown(cell) for cell in line] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in [escaped[0], ["---"] * len(escaped[0]), *escaped[1:]])
