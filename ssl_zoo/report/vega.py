"""Parts of Vega-Lite specifications: data, parameters, axes that end where the data does, layers in colours of rows."""

import functools
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from ssl_zoo.data.cache import cached
from ssl_zoo.report.metrics import AXES
from ssl_zoo.report.series import Series

VEGA_LITE = "6.1"
"""Of Vega-Lite, for page and PDF alike."""
NUMBER_AXIS = {"tickCount": {"expr": "ceil(width / 90)"}, "labelOverlap": True, "labelFlush": True}
COST_AXIS = {**NUMBER_AXIS, "format": "~s"}
DASHED = {"strokeDash": {"field": "dash", "type": "nominal", "scale": None}, "detail": {"field": "label"}}
_INK = "currentColor"
_QUIET = {"gridColor": _INK, "gridOpacity": 0.12, "domain": False, "tickColor": _INK, "tickOpacity": 0.3}


class Control(NamedTuple):
    """A choice beside a figure.

    Attributes:
        name: parameter of the specification.
        label: what is chosen.
        options: value and text of each choice; the first is shown first.
    """

    name: str
    label: str
    options: list[tuple[str, str]]


class Figure(NamedTuple):
    """One figure.

    Attributes:
        name: a word for its file and its place in the page.
        title: heading.
        caption: how to read it.
        alt: what it shows, for those who do not see it.
        spec: in Vega-Lite.
        controls: of its parameters.
    """

    name: str
    title: str
    caption: str
    alt: str
    spec: dict[str, Any]
    controls: list[Control]


def specify(
    series: Sequence[Series],
    values: list[dict[str, Any]],
    names: Mapping[str, str],
    params: Mapping[str, Any],
    axes: Sequence[str] = (),
) -> dict[str, Any]:
    """Returns what all figures share.

    Args:
        series: looks of the rows, joined to the values by their "row".
        values: the data, each with its "row" and "metric"; one metric is shown at a time.
        names: title of each metric; the first is shown first.
        params: further parameters by name.
        axes: fields of the values of which one at a time is the field "cost".
    """
    rows = [each.look for each in series]
    looks = {"data": {"values": rows}, "key": "row", "fields": ["label", "colour", "shape", "dash"]}
    shown: list[dict[str, Any]] = [{"filter": "datum.metric === metric"}, {"lookup": "row", "from": looks}]
    title = "names[metric]"
    given: dict[str, Any] = {"metric": next(iter(names)), "names": names, "chosen": "", **params}
    if axes:
        given |= {"axis": axes[0], "titles": {axis: AXES[axis] for axis in axes}}
        shown += [{"calculate": "datum[axis]", "as": "cost"}, {"filter": "isValid(datum.cost)"}]
        title += " + ' against ' + titles[axis]"
    font = "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif"
    return {
        "$schema": f"https://vega.github.io/schema/vega-lite/v{VEGA_LITE.partition('.')[0]}.json",
        "width": "container",
        "autosize": {"type": "fit-x", "contains": "padding"},
        "background": None,
        "data": {"values": values},
        "transform": shown,
        "params": [{"name": name, "value": value} for name, value in given.items()],
        "title": {"text": {"expr": title}, "anchor": "start", "fontSize": 13, "color": _INK, "offset": 10},
        "config": {
            "font": font,
            "view": {"stroke": None},
            "axis": {"labelColor": _INK, "titleColor": _INK, "labelFontSize": 12, "titleFontSize": 12, **_QUIET},
        },
    }


def layer(kind: str | None, mark: dict[str, Any], encoding: dict[str, Any], colour: bool = True) -> dict[str, Any]:
    """A layer of the values of one kind, in the colour and shape of their row."""
    shared: dict[str, Any] = {"opacity": emphasize(mark.get("opacity", 1.0), 0.1)}
    if colour:
        shared["color"] = {"field": "colour", "type": "nominal", "scale": None}
    if mark["type"] == "point":
        shared["shape"] = {"field": "shape", "type": "nominal", "scale": None}
    if mark["type"] in ("area", "line"):
        shared["detail"] = {"field": "label"}
    test = "datum.kind === 'before' && before" if kind == "before" else f"datum.kind === '{kind}'"
    chosen = {"transform": [{"filter": test}]} if kind else {}
    mark = {key: value for key, value in mark.items() if key != "opacity"} | {"clip": kind is None}
    return {**chosen, "mark": mark, "encoding": shared | encoding}


def emphasize(usual: float, faint: float) -> dict[str, Any]:
    """The opacity of a mark: faint where another row is chosen."""
    return {"condition": {"test": "chosen === '' || chosen === datum.label", "value": usual}, "value": faint}


def tooltip(*fields: str) -> list[dict[str, Any]]:
    """What is shown when one points at a mark: the row, its value and `fields`."""
    titles = {"label": "row", "text": "value", "cost": "cost", "labels": "labels per class", "class": "class"}
    return [
        {"field": field, "title": titles[field], "type": "quantitative" if field == "cost" else "nominal"}
        | ({"format": ".4~s"} if field == "cost" else {})
        for field in ("label", "text", *fields)
    ]


def fitted(bounds: str) -> dict[str, Any]:
    """A scale that ends where the data does, and not always at 0 and 100."""
    return {"zero": False, "nice": False, "domain": [{"expr": f"{bounds}[{end}]"} for end in (0, 1)]}


def bounds_of(values: Sequence[Mapping[str, Any]], fields: Sequence[str]) -> dict[str, list[float]]:
    """The ends of the axis, by metric."""
    by_metric: dict[str, list[float]] = {}
    for value in values:
        by_metric.setdefault(value["metric"], []).extend(value[field] for field in fields)
    return {metric: fit(numbers) for metric, numbers in by_metric.items()}


def fit(numbers: Sequence[float], is_log: bool = False) -> list[float]:
    """The range of the numbers with some air."""
    low, high = min(numbers), max(numbers)
    if is_log:
        return [low / 1.5, high * 1.5]
    air = 0.06 * (high - low) or 0.05 * abs(high) or 1.0
    return [low - air, high + air]


def draw_pdf(spec: Mapping[str, Any], width: int = 340) -> bytes:
    """Draws a specification as a PDF file.

    Args:
        spec: in Vega-Lite.
        width: in points, 1/72 inch.
    """
    import vl_convert

    return bytes(vl_convert.vegalite_to_pdf({**spec, "width": width, "background": "white"}, vl_version=VEGA_LITE))


def draw_png(spec: Mapping[str, Any], width: int = 640) -> bytes:
    """Draws a specification as a PNG file, `width` pixels wide."""
    import vl_convert

    return bytes(vl_convert.vegalite_to_png({**spec, "width": width, "background": "white"}, vl_version=VEGA_LITE))


@functools.cache
def library() -> str:
    """Returns the JavaScript of Vega-Lite with all that it needs, of which vl-convert makes one text.

    That takes seconds, so the text is kept in the cache; without a cache that can be written it is made each time.
    """
    import vl_convert

    def make() -> str:
        return vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", VEGA_LITE)

    def build(folder: Path) -> None:
        (folder / "vega.js").write_text(make(), encoding="utf-8")

    key = {"format": 1, "vl_convert": version("vl-convert-python"), "vega_lite": VEGA_LITE}
    try:
        return (cached("javascript", key, build) / "vega.js").read_text(encoding="utf-8")
    except (OSError, ValueError):
        return make()
