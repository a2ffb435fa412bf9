"""The report as one HTML page that opens offline: verdicts, leaderboard, figures, pictures, runs, appendix."""

import base64
import functools
import io
import json
import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ssl_zoo.report import figures
from ssl_zoo.report.appendix import answer
from ssl_zoo.report.board import NO_CELL, Board, Cell, Column, Line
from ssl_zoo.report.comparison import Comparison
from ssl_zoo.report.difference import Difference
from ssl_zoo.report.display import to_plain_text
from ssl_zoo.report.estimate import is_accuracy, with_interval
from ssl_zoo.report.metrics import AXES, meaning_of
from ssl_zoo.report.representation_view import map_classes, map_figures
from ssl_zoo.report.row import ComparisonRow
from ssl_zoo.report.sections import make_sections
from ssl_zoo.report.series import SHAPES, make_series, row_names
from ssl_zoo.report.sheet import SHEET_NAME
from ssl_zoo.report.vega import library

PAGE_TEMPLATE = Path(__file__).with_name("page.html")
MAX_VERDICTS = 6
"""Sentences on top; further ones unfold."""
SHEET_WIDTH = 520
"""Pixels of a sheet of neighbours in the page; the link leads to the whole one."""
SHEET_BYTES = 300_000
"""Of all sheets in the page together; further ones are links."""


class Sheet(NamedTuple):
    """Neighbours by one encoder: a data URI, "" for a mere link, and its size in pixels."""

    name: str
    seed: Any
    link: str
    alt: str
    source: str
    width: int
    height: int


def to_page(comparison: Comparison, out: Path, axis: str | None = None, title: str = "Comparison") -> str:
    """Formats the comparison as an HTML page.

    Args:
        comparison: the rows.
        out: the folder of the page, from which its links start.
        axis: what accuracy is plotted against, see `figures.make_figures`.
        title: heading.

    Raises:
        ValueError: if no run has what `axis` needs.
    """
    series, names = make_series(comparison), row_names(comparison)
    drawn = figures.make_figures(comparison, axis)
    maps = map_figures(comparison, series)
    specs = json.dumps({figure.name: figure.spec for figure in [*drawn, *maps]}, separators=(",", ":"))
    others = [key for key in comparison.metrics if key not in comparison.headlines]
    incomplete = incomplete_lines(comparison, out)
    tables = make_sections(comparison, series)
    parts: dict[str, Any] = {
        "title": to_plain_text(title),
        "about": about(comparison),
        "verdicts": comparison.verdicts,
        "shown": MAX_VERDICTS,
        "notes": comparison.notes,
        "board": board(comparison, comparison.headlines, "Leaderboard") if comparison.rows else None,
        "all_metrics": board(comparison, comparison.metrics, "All metrics") if others else None,
        "meanings": meanings([*comparison.headlines, *AXES]),
        "other_meanings": meanings(others),
        "figures": drawn,
        "maps": maps,
        "classes": map_classes(comparison.representations) if comparison.representations and maps else [],
        "symbols": SHAPES,
        "series": [
            {**each.look, "name": name, "symbol": SHAPES[each.shape]} for each, name in zip(series, names, strict=True)
        ],
        "tables": tables,
        "sheets": list(sheets(comparison, names, out)),
        "incomplete": incomplete,
        "runs": [
            describe_run(run, name, out) for row, name in zip(comparison.rows, names, strict=True) for run in row.runs
        ],
        "answers": answer(comparison),
        # In a script element only "<" could end it, and JSON may write any letter as an escape.
        "data": specs.replace("<", "\\u003c"),
        "library": library() if drawn else "",
    }
    every = {
        "leaderboard": ("Leaderboard", parts["board"]),
        "figures": ("Figures", drawn),
        **{f"section-{section.name}": (section.title, True) for section in tables},
        "neighbours": ("Nearest neighbours", parts["sheets"]),
        "incomplete": ("Not completed", incomplete),
        "runs": ("Runs", parts["runs"]),
        "appendix": ("Reviewer's appendix", True),
    }
    sections = [(name, text) for name, (text, exists) in every.items() if exists]
    return str(_template().render(**parts, sections=sections))


@functools.cache
def _template() -> Any:
    import jinja2

    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    return environment.from_string(PAGE_TEMPLATE.read_text(encoding="utf-8"))


def about(comparison: Comparison) -> str:
    """Says in one line what is compared."""
    rows, runs = len(comparison.rows), sum(len(row.runs) for row in comparison.rows)
    parts = [f"{rows} row{'s' * (rows != 1)} of {runs} completed run{'s' * (runs != 1)}"]
    if data := sorted({row.names["data"] for row in comparison.rows}):
        parts.append(f"on {', '.join(data)}")
    if comparison.incomplete:
        parts.append(f"{len(comparison.incomplete)} not completed")
    return ", ".join(parts) + "."


def board(comparison: Comparison, metrics: Sequence[str], caption: str) -> Board:
    """Makes the table: a line per row with its metrics, those before training below them, n and costs."""
    costs = comparison.present(AXES)
    found = comparison.differences(comparison.headline) if comparison.headline else []
    differences = {id(each.row): each for each in found}
    columns = [Column("row", "", False)]
    columns += [Column(f"{key} %" if is_accuracy(key) else key, meaning_of(key), True) for key in metrics]
    columns[2:2] = [_difference_column(comparison)] if differences else []
    columns += [Column("n", "Number of runs, which differ in their seed.", True)]
    columns += [Column("FLOPs" if axis == "flops" else axis, meaning_of(axis), True) for axis in costs]
    lines = []
    for each, name in zip(make_series(comparison), row_names(comparison), strict=True):
        row = each.row
        cells = [Cell(name, "", name, False), *(_metric_cell(row, key) for key in metrics)]
        cells[2:2] = [_difference_cell(differences.get(id(row)))] if differences else []
        cells.append(Cell(str(len(row.seeds)), "", len(row.seeds), True))
        for axis in costs:
            mean = row.estimates[axis].mean if axis in row.estimates else None
            cells.append(NO_CELL if mean is None else Cell(short_number(mean), "", mean, True))
        lines.append(Line(cells, each.colour, SHAPES[each.shape], comparison.badge(row)))
    return Board(caption, columns, lines)


def _metric_cell(row: ComparisonRow, key: str) -> Cell:
    before = row.cell(f"init/{key}")
    value = row.estimates[key].mean if key in row.estimates else ""
    return Cell(row.cell(key), f"{before.partition(' ')[0]} before" if before else "", value, True)


def _difference_column(comparison: Comparison) -> Column:
    metric = comparison.headline or ""
    to = "the baseline" if comparison.named else "the best comparable row"
    name = f"to {'baseline' if comparison.named else 'best'}{', points' * is_accuracy(metric)}"
    meaning = f"Difference of {metric} to {to} over shared seeds, with its 95 % interval and p after Holm's correction."
    return Column(name, meaning, True)


def _difference_cell(found: Difference | None) -> Cell:
    if found is None or found.mean is None:
        return NO_CELL
    scale = 100 if is_accuracy(found.metric) else 1
    ends = None if found.low is None or found.high is None else (scale * found.low, scale * found.high)
    text = with_interval(scale * found.mean, ends, 1 if scale == 100 else 3)
    small = "no test" if found.p_holm is None else f"p = {found.p_holm:.2g}"
    return Cell(text.replace("-", "\u2212"), small, found.mean, True)


def short_number(value: float) -> str:
    """Formats a cost with four digits at most: 2,327, 93.1, 2.33e12."""
    if value >= 1e6:
        mantissa, _, exponent = f"{value:.2e}".partition("e")
        return f"{mantissa}e{int(exponent)}"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def meanings(keys: Sequence[str]) -> list[tuple[str, str]]:
    """Returns each meaning of `keys`, after those that have it."""
    sharing: dict[str, list[str]] = {}
    for key in keys:
        sharing.setdefault(meaning_of(key), []).append(key)
    return [(", ".join(same), text) for text, same in sharing.items() if text]


def incomplete_lines(comparison: Comparison, out: Path) -> tuple[list[str], list[tuple[list[str], str]]] | None:
    """Returns the header and the lines, each with the link to its run; None if all runs are complete."""
    if not comparison.incomplete:
        return None
    head, *lines = comparison.incomplete_table()
    links = [link_to(run["folder"], out) for run in comparison.incomplete]
    return head, [([*line[:-1], link], link) for line, link in zip(lines, links, strict=True)]


def link_to(path: Path | str, out: Path) -> str:
    """The path from the folder of the page, with "/" between its parts."""
    try:
        return Path(os.path.relpath(path, out)).as_posix()
    except ValueError:  # on another drive
        return Path(path).as_posix()


def describe_run(run: Mapping[str, Any], name: str, out: Path) -> dict[str, str]:
    """What is needed to make a run again: command, versions, hardware; with its costs and its folder."""
    environment, budget = run["environment"], run["budget"]
    known = {key: str(environment.get(key) or "unknown") for key in ("torch", "device", "precision")}
    overrides = run.get("overrides")
    command = "unknown" if overrides is None else shlex.join(["python", "run.py", *overrides])
    return {
        **known,
        "name": name,
        "link": link_to(run["folder"], out),
        "seed": "" if run["seed"] is None else str(run["seed"]),
        "command": command,
        "commit": str(environment.get("git") or "unknown"),
        "seconds": short_number(budget["seconds"]) if budget.get("seconds") else "",
        "flops": short_number(budget["flops"]) if budget.get("flops") else "",
    }


def sheets(comparison: Comparison, names: Sequence[str], out: Path) -> Iterator[Sheet]:
    """Yields the sheet of neighbours of the first run of each row that has one, as long as there is room."""
    room = SHEET_BYTES
    for row, name in zip(comparison.rows, names, strict=True):
        found = ((run, Path(run["folder"]) / SHEET_NAME) for run in row.runs)
        run, path = next(((run, path) for run, path in found if path.is_file()), (None, None))
        if run is None or path is None:
            continue
        content, size = _shrink(path) if room > 0 else ("", (0, 0))
        room -= len(content)
        source = f"data:image/jpeg;base64,{content}" if content and room >= 0 else ""
        alt = f"Sheet of nearest neighbours of test images by {name}"
        yield Sheet(name, run["seed"], link_to(path, out), alt, source, *size)


def _shrink(path: Path) -> tuple[str, tuple[int, int]]:
    """A smaller JPEG copy in base64 and its size in pixels; nothing for a file that is no picture."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            small = image.convert("RGB")
    except (OSError, ValueError, Image.DecompressionBombError):
        return "", (0, 0)
    small.thumbnail((SHEET_WIDTH, 4 * SHEET_WIDTH))
    content = io.BytesIO()
    small.save(content, "JPEG", quality=72, optimize=True)
    return base64.b64encode(content.getvalue()).decode(), small.size
