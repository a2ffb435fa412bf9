"""CKA between representations as a heat map and as CSV, and maps of the same examples side by side."""

import csv
import io
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from ssl_zoo.report.comparison import Comparison
from ssl_zoo.report.display import escape_spreadsheet, to_plain_text
from ssl_zoo.report.representations import Representations
from ssl_zoo.report.series import LABEL_LINE, ROW_COLOURS, SHAPES, Series, row_names
from ssl_zoo.report.vega import Figure, emphasize, specify

MAX_COLOURED = 12
"""Classes that have a colour in the maps: the most frequent ones; the others are grey."""
OTHER_COLOUR = "#8C8C8C"


def cka_figure(comparison: Comparison, series: Sequence[Series]) -> Figure | None:
    """The heat map; None where no two rows have kept features of the same examples."""
    found = comparison.representations
    if found is None or len(found.rows) < 2:
        return None
    by_row = {id(each.row): each for each in series}
    looks = [by_row[id(row)] for row in found.rows]
    labels = [each.label for each in looks]
    values: list[dict[str, Any]] = []
    for one, (look, line) in enumerate(zip(looks, found.cka, strict=True)):
        for other, value in enumerate(line):
            if np.isfinite(value):
                about = {"row": look.number, "metric": "cka", "of": one + 1, "other": other + 1}
                values.append({**about, "value": round(float(value), 3)})
    cell = f"width / {len(looks)}"
    names = {"cka": "linear CKA"}
    heights = [max(30, 8 + LABEL_LINE * (label.count("\n") + 1)) for label in labels]
    spec = specify(looks, values, names, {"labels": labels})
    spec |= {
        "height": len(looks) * max(heights),
        "encoding": {
            "x": {
                "field": "other",
                "type": "ordinal",
                "title": None,
                "axis": {"labelAngle": 0, "ticks": False, "labelOverlap": True, "domain": False},
            },
            "y": {
                "field": "of",
                "type": "ordinal",
                "title": None,
                "axis": {
                    "labelExpr": "split(datum.value + '  ' + labels[datum.value - 1], '\\n')",
                    "labelLimit": 0,
                    "ticks": False,
                    "domain": False,
                },
            },
            "tooltip": [
                {"field": "label", "title": "row", "type": "nominal"},
                {"field": "other", "title": "with row", "type": "nominal"},
                {"field": "value", "title": "CKA", "type": "quantitative"},
            ],
        },
        "layer": [
            {
                "mark": {"type": "rect"},
                "encoding": {
                    "opacity": emphasize(1.0, 0.25),
                    "color": {
                        "field": "value",
                        "type": "quantitative",
                        "scale": {"scheme": "viridis", "domain": [0, 1], "clamp": True},
                        "legend": None,
                    },
                },
            },
            {
                "mark": {"type": "text", "fontSize": 11},
                "encoding": {
                    "text": {"field": "value", "type": "quantitative", "format": ".2f"},
                    "opacity": {"condition": {"test": f"{cell} > 34", "value": 1}, "value": 0},
                    "color": {"condition": {"test": "datum.value > 0.6", "value": "black"}, "value": "white"},
                },
            },
        ],
    }
    left_out = f" {' '.join(note for note in found.notes if not note.startswith('Maps'))}".rstrip()
    return Figure(
        "cka",
        "Similarity of representations",
        f"Linear CKA of the features of {found.examples:,} evaluated examples, by the unbiased estimate: 1 (yellow) "
        "for equal representations up to rotation and scale, about 0 (violet) for unrelated ones. On the diagonal: of "
        f"two seeds of a row, where there are two.{left_out}",
        f"Similarity of the representations of {', '.join(row_names(comparison)[each.number] for each in looks)}.",
        spec,
        [],
    )


def map_figures(comparison: Comparison, series: Sequence[Series]) -> list[Figure]:
    """A map of each row, of the same examples in the same colours."""
    found = comparison.representations
    if found is None:
        return []
    looks, names = {id(each.row): each for each in series}, row_names(comparison)
    classes = map_classes(found)
    domain = [number for number, *_ in classes]
    colours, shapes = ([look[place] for look in classes] for place in (2, 3))
    kinds = [int(label) if int(label) in domain else -1 for label in found.y]
    figures = []
    for number, one in enumerate(found.maps):
        look = looks[id(one.row)]
        points = (500 * (one.places + 1)).round().astype(int).tolist()
        values = [{"x": x, "y": y, "c": kind} for (x, y), kind in zip(points, kinds, strict=True)]
        hidden: dict[str, Any] = {"type": "quantitative", "scale": {"domain": [-30, 1030], "nice": False}, "axis": None}
        spec = specify([look], [], {"map": names[look.number]}, {"label": look.label}) | {
            "data": {"values": values},
            "transform": [],
            "title": None,
            "height": 220,
            "mark": {"type": "point", "filled": True, "size": 22},
            "encoding": {
                "x": {"field": "x", **hidden},
                "y": {"field": "y", **hidden},
                "color": {
                    "field": "c",
                    "type": "nominal",
                    "scale": {"domain": [*domain, -1], "range": [*colours, OTHER_COLOUR]},
                    "legend": None,
                },
                "shape": {
                    "field": "c",
                    "type": "nominal",
                    "scale": {"domain": [*domain, -1], "range": [*shapes, "circle"]},
                    "legend": None,
                },
                "opacity": {"condition": {"test": "chosen === '' || chosen === label", "value": 0.85}, "value": 0.08},
            },
        }
        title = f"{names[look.number]}, seed {one.seed}"
        alt = f"Map of {len(values):,} examples by {title}, coloured by class"
        figures.append(Figure(f"map-{number + 1}", title, title, alt, spec, []))
    return figures


def map_classes(found: Representations) -> list[tuple[int, str, str, str]]:
    """The classes that have a colour in the maps: number, name, colour, shape."""
    counts = Counter(int(label) for label in found.y if label >= 0)
    shown = sorted(number for number, _ in counts.most_common(MAX_COLOURED))
    colours = [colour for colour in ROW_COLOURS if colour != OTHER_COLOUR or len(counts) <= MAX_COLOURED]
    shapes = list(SHAPES)
    return [
        (number, to_plain_text(found.names[number]), colours[place % len(colours)], shapes[place // len(colours)])
        for place, number in enumerate(shown)
    ]


def cka_csv(comparison: Comparison) -> str | None:
    """CKA of each pair of rows as CSV; None where there is no pair."""
    found = comparison.representations
    if found is None or len(found.rows) < 2:
        return None
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = [escape_spreadsheet(comparison.label(row)) for row in found.rows]
    writer.writerow(["row", *names])
    for name, line in zip(names, found.cka, strict=True):
        writer.writerow([name, *("" if np.isnan(value) else round(float(value), 4) for value in line)])
    return text.getvalue()
