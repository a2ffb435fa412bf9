"""Compares runs by their results.json files: `python -m ssl_zoo.report <folders...>`.

Prints the comparison and writes it as Markdown, as CSV with plain numbers, and as one HTML page with figures.
"""

import argparse
import csv
import html
import io
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ssl_zoo import files
from ssl_zoo.report import bars, display, results
from ssl_zoo.report.comparison import COSTS, NAME_COLUMNS, Comparison, compare, is_accuracy, is_better_low


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
    """Formats the comparison as Markdown: table, verdicts, notes, and the runs that did not complete."""
    parts = ["# Comparison", *([_markdown(comparison.table(comparison.headlines))] if comparison.rows else [])]
    if comparison.verdicts:
        parts.append("\n".join(f"- {display.escape_markdown(line)}" for line in comparison.verdicts))
    parts.append("\n".join(f"- {display.escape_markdown(note)}" for note in comparison.notes))
    if comparison.incomplete:
        parts += ["## Not completed", _markdown(comparison.incomplete_table())]
    return "\n\n".join(parts) + "\n"


def to_csv(comparison: Comparison) -> str:
    """Formats the comparison as CSV with plain numbers.

    For each metric: the mean, half the width and the bounds of its 95 % interval, the number of runs, and for
    accuracies the number of test examples. At the end the difference of the first headline metric to the baseline.
    """
    keys = [*comparison.with_baselines(comparison.metrics), *comparison.present(COSTS)]
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


def to_html(comparison: Comparison) -> str:
    """Formats the comparison as a self-contained HTML page: table, one figure per metric, all metrics, failed runs."""
    parts = [_html(comparison.table(comparison.headlines))] if comparison.rows else []
    parts.append(f"<ul>{''.join(f'<li>{html.escape(note)}</li>' for note in comparison.notes)}</ul>")
    parts += [f'<img alt="{html.escape(key)}" src="{_plot_metric(comparison, key)}">' for key in comparison.headlines]
    if comparison.metrics != comparison.headlines:
        parts += ["<h2>All metrics</h2>", _html(comparison.table(comparison.metrics))]
    if comparison.incomplete:
        parts += ["<h2>Not completed</h2>", _html(comparison.incomplete_table())]
    return _PAGE.replace("BODY", "\n".join(parts))


def _plot_metric(comparison: Comparison, key: str) -> str:
    shown = []
    for row in comparison.rows:
        if key in row.estimates:
            estimate, baseline = row.estimates[key], row.estimates.get(f"init/{key}")
            scale = 100 if is_accuracy(key) else 1
            others = ", ".join(filter(None, (row.names[name] for name in comparison.varying if name != "method")))
            ends = estimate.interval(is_accuracy(key))
            bar = bars.Bar(
                label="\n".join(filter(None, (row.names["method"], others))),
                text=row.cell(key),
                values=tuple(scale * value for value in estimate.values),
                interval=None if ends is None else (scale * ends[0], scale * ends[1]),
                baseline=scale * baseline.mean if baseline else None,
            )
            shown.append(bar)
    title = f"{key} %" if is_accuracy(key) else f"{key} (low is good)" if is_better_low(key) else key
    return bars.plot_bars(title, shown, is_log=key.endswith("perplexity"), limit=100 if is_accuracy(key) else None)


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


def _html(lines: list[list[str]]) -> str:
    head, *body = ([html.escape(cell) for cell in line] for line in lines)
    rows = (f"<tr>{''.join(f'<td>{cell}</td>' for cell in line)}</tr>" for line in body)
    return f"<table><tr>{''.join(f'<th>{cell}</th>' for cell in head)}</tr>{''.join(rows)}</table>"


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Comparison</title><style>
body { font: 15px/1.5 system-ui, sans-serif; color: #22303c; max-width: 70em; margin: 2em auto; padding: 0 1em }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; display: block; overflow-x: auto }
th, td { padding: .35em .9em .35em 0; text-align: left; border-bottom: 1px solid #e6e9ed; white-space: nowrap }
th { color: #6b7785; font-weight: 600 } ul { color: #6b7785; padding-left: 1.2em }
img { max-width: 100%; display: block; margin: 1.5em 0 }
</style></head><body><h1>Comparison</h1>
BODY
</body></html>
"""


def write_report(runs: Sequence[dict[str, Any]], out: Path, baseline: str | None = None, across: bool = False) -> None:
    """Prints the comparison of `runs`, see `compare`, and writes report.md, report.csv and report.html to `out`."""
    comparison = compare(runs, baseline, across)
    print_tables(comparison)
    out.mkdir(parents=True, exist_ok=True)
    files.write_atomically(out / "report.md", to_markdown(comparison))
    files.write_atomically(out / "report.csv", to_csv(comparison))
    files.write_atomically(out / "report.html", to_html(comparison))
    print(f"Written beside the runs: {out / 'report.html'}, .md, .csv")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status: 0, or 2 for an invalid argument."""
    parser = argparse.ArgumentParser("python -m ssl_zoo.report", description="Compare runs by their results.json.")
    parser.add_argument("folders", nargs="+", type=Path, help="run folders, or folders that hold some, however deep")
    parser.add_argument("--out", type=Path, help="where report.md, .csv and .html go; the first folder if not given")
    parser.add_argument(
        "--baseline", help="method, settings or label of the row to compare with; the best if not given"
    )
    parser.add_argument("--across", action="store_true", help="compare rows of other data, evaluation, views or budget")
    given = parser.parse_args(arguments)
    display.replace_unencodable()
    first = given.folders[0]
    out = given.out or (first if first.is_dir() else first.parent)
    try:
        write_report(load_runs(given.folders), out, given.baseline, given.across)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0
