"""Accuracies by class as tables, as a figure and as CSV; of many classes those on which the rows differ most."""

import csv
import io
from collections.abc import Sequence
from typing import Any

from ssl_zoo.report.board import Board, Cell, Column, Line, Section
from ssl_zoo.report.classes import ByClass, ClassDifference
from ssl_zoo.report.comparison import Comparison
from ssl_zoo.report.display import escape_spreadsheet, to_plain_text
from ssl_zoo.report.row import ComparisonRow
from ssl_zoo.report.series import SHAPES, Series, row_names
from ssl_zoo.report.vega import NUMBER_AXIS, Control, Figure, bounds_of, fitted, layer, specify, tooltip

MAX_SHOWN = 15
"""Classes in page and Markdown; the CSV file has all."""
NAME_LETTERS = 18
"""Of the name of a class in the figure: leaves room for the figure on a phone."""
CLASS_HEIGHT = 26
"""Of a class in the figure, in pixels."""


def class_section(comparison: Comparison, series: Sequence[Series]) -> Section | None:
    """The tables of rows and classes; None if no outcomes were kept."""
    tables, missing = comparison.classes
    if not tables and not missing:
        return None
    notes = []
    if tables:
        baseline = "the baseline" if comparison.named else "the best comparable row"
        notes.append(
            f"{tables[0].metric} by class in per cent, mean over runs; below it the difference to {baseline}, in "
            "points. * marks those that a test shows, over shared seeds or, with one seed, over the test examples of "
            "the class; p is corrected by Holm for all rows and classes."
        )
    for table in tables:
        if len(table.order) > MAX_SHOWN:
            notes.append(
                f"{table.data}: the {MAX_SHOWN} of {len(table.order):,} classes on which the rows differ most, chosen "
                "by that, so that differences of this size are to be expected somewhere; report-classes.csv has all."
            )
    return Section("classes", "By class", [*notes, *missing], [_board(comparison, series, table) for table in tables])


def _board(comparison: Comparison, series: Sequence[Series], table: ByClass) -> Board:
    shown = table.order[:MAX_SHOWN]
    looks = {id(each.row): each for each in series}
    names = row_names(comparison)
    columns = [Column("row", "", False)]
    for number in shown:
        count = table.counts[number]
        columns.append(Column(to_plain_text(table.names[number]), f"{count:,} test example{'s' * (count != 1)}", True))
    lines = []
    for row, accuracies, differences in zip(table.rows, table.accuracies, table.differences, strict=True):
        look = looks[id(row)]
        cells = [Cell(names[look.number], "", names[look.number], False)]
        for number in shown:
            small = _points(differences[number]) if differences else ""
            value = 100 * float(accuracies[number])
            cells.append(Cell(f"{value:.1f}", small, value, True))
        lines.append(Line(cells, look.colour, SHAPES[look.shape], comparison.badge(row)))
    return Board(f"{table.metric} by class, {table.data}", columns, lines)


def _points(difference: ClassDifference) -> str:
    text = f"{100 * difference.mean:+.1f}".replace("-", "\u2212").replace("+0.0", "0.0")
    return text + " *" * difference.is_shown


def class_figure(comparison: Comparison, series: Sequence[Series]) -> Figure | None:
    """Differences and accuracies by class, one point per row; None without labels."""
    tables, _ = comparison.classes
    numbers = {id(each.row): each.number for each in series}
    values: list[dict[str, Any]] = []
    names = {str(place): f"{table.metric} by class, {table.data}" for place, table in enumerate(tables)}
    for place, table in enumerate(tables):
        for rank, number in enumerate(table.order[:MAX_SHOWN]):
            for row, accuracies, differences in zip(table.rows, table.accuracies, table.differences, strict=True):
                one = {"row": numbers[id(row)], "metric": str(place), "class": _short(table, number), "rank": rank}
                accuracy = round(100 * float(accuracies[number]), 2)
                text = f"{accuracy:.1f} %"
                values.append({**one, "what": "accuracy", "kind": "sure", "value": accuracy, "text": text})
                if differences:
                    found = differences[number]
                    kind, text = "sure" if found.is_shown else "open", f"{_points(found)} points ({text})"
                    values.append(
                        {**one, "what": "difference", "kind": kind, "value": round(100 * found.mean, 2), "text": text}
                    )
    if not values:
        return None
    whats = {"difference": "difference in points", "accuracy": "accuracy in per cent"}
    whats = {key: text for key, text in whats.items() if any(value["what"] == key for value in values)}
    bounds = {what: bounds_of([value for value in values if value["what"] == what], ["value"]) for what in whats}
    x = {
        "field": "value",
        "type": "quantitative",
        "title": None,
        "scale": fitted("(bounds[what][metric] || [0, 1])"),
        "axis": NUMBER_AXIS,
    }
    spec = specify(series, values, names, {"what": next(iter(whats)), "bounds": bounds})
    spec["transform"] = [{"filter": "datum.what === what"}, *spec["transform"]]
    spec |= {
        "height": CLASS_HEIGHT * max(min(len(table.order), MAX_SHOWN) for table in tables),
        "encoding": {
            "y": {
                "field": "class",
                "type": "nominal",
                "title": None,
                "sort": {"field": "rank", "op": "min"},
                "axis": {"labelLimit": 0, "ticks": False, "grid": True},
            },
        },
        "layer": [
            layer("open", {"type": "point", "size": 60}, {"x": x, "tooltip": tooltip("class")}),
            layer("sure", {"type": "point", "size": 70, "filled": True}, {"x": x, "tooltip": tooltip("class")}),
        ],
    }
    bounded = f" The {MAX_SHOWN} classes on which the rows differ most." if _is_bounded(tables) else ""
    to = "the baseline" if comparison.named else "the best comparable row"
    return Figure(
        "classes",
        "Differences by class",
        f"Each point: a row less {to}, on one class. Filled: a test shows the difference after Holm's correction for "
        f"all rows and classes; accuracies are all filled.{bounded}",
        f"{tables[0].metric} of each row by class; the numbers are in the table below.",
        spec,
        [Control("metric", "Data", list(names.items())), Control("what", "Show", list(whats.items()))],
    )


def _is_bounded(tables: Sequence[ByClass]) -> bool:
    return any(len(table.order) > MAX_SHOWN for table in tables)


def _short(table: ByClass, number: int) -> str:
    """The name of a class for the axis; two that are cut to the same letters keep their numbers."""
    names = [to_plain_text(name) for name in table.names]
    name = names[number]
    if len(name) <= NAME_LETTERS and names.count(name) == 1:
        return str(name)
    return f"{name[: NAME_LETTERS - 6].strip()} #{number}"


def classes_csv(comparison: Comparison) -> str | None:
    """All accuracies and differences by class as CSV, fractions; None without labels."""
    tables, _ = comparison.classes
    if not tables:
        return None
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    head = ["data", "row", "metric", "class", "examples", "runs", "accuracy", "difference", "p", "p_holm"]
    writer.writerow(head)
    for table in tables:
        for row, accuracies, differences in zip(table.rows, table.accuracies, table.differences, strict=True):
            about = [escape_spreadsheet(each) for each in (table.data, comparison.label(row), table.metric)]
            for number in sorted(table.order):
                found = differences[number] if differences else (None, None, None)
                name, count = escape_spreadsheet(table.names[number]), table.counts[number]
                writer.writerow([*about, name, count, _runs(row, table), float(accuracies[number]), *found])
    return text.getvalue()


def _runs(row: ComparisonRow, table: ByClass) -> int:
    return len(row.estimates[table.metric].values)
