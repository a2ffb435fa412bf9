"""The report's figures as Vega-Lite specifications: a browser draws them in the page, vl-convert as PDF for a paper."""

from collections.abc import Iterable, Sequence
from typing import Any

from ssl_zoo.report.class_view import class_figure
from ssl_zoo.report.comparison import Comparison
from ssl_zoo.report.curves import average_curves
from ssl_zoo.report.estimate import is_accuracy, is_better_low
from ssl_zoo.report.metrics import AXES, LABEL_KEYS
from ssl_zoo.report.representation_view import cka_figure
from ssl_zoo.report.row import ComparisonRow
from ssl_zoo.report.series import LABEL_LINE, Series, make_series
from ssl_zoo.report.vega import (
    COST_AXIS,
    DASHED,
    NUMBER_AXIS,
    Control,
    Figure,
    bounds_of,
    emphasize,
    fit,
    fitted,
    layer,
    specify,
    tooltip,
)

_ENDS = ("value", "low", "high")


def make_figures(comparison: Comparison, axis: str | None = None) -> list[Figure]:
    """Returns the figures for which the runs have data.

    Args:
        comparison: the rows.
        axis: key of `AXES` that accuracy is plotted against at first, or "labels"; None for the first that is known.

    Raises:
        ValueError: if no run has what `axis` needs; names the remedy.
    """
    series = make_series(comparison)
    axes = [name for name in AXES if any(name in each.row.estimates for each in series)]
    labels = _labels(series)
    if axis == "labels" and labels is None and series:
        raise ValueError(
            "axis=labels: no run has accuracies by number of labels (few/<n>/...). "
            "Measure them: python run.py task=evaluate encoder=<run folder> evaluators=[few_labels]"
        )
    if axis in AXES and axis not in axes and series:
        raise ValueError(f"axis={axis}: no run has recorded its {AXES[axis]}. Recorded: {', '.join(axes) or 'nothing'}")
    if axis in axes:
        axes.sort(key=lambda name: name != axis)
    found = [_dots(series, comparison.headlines), _against(series, comparison.headlines, axes), labels]
    if axis == "labels":
        found = [labels, *found[:-1]]
    found += [_curves(series, comparison.headlines, axes), class_figure(comparison, series)]
    found += [cka_figure(comparison, series)]
    return [figure for figure in found if figure is not None]


def _dots(series: Sequence[Series], metrics: Sequence[str]) -> Figure | None:
    """Mean, interval and single runs of each row, and the value before training."""
    values: list[dict[str, Any]] = []
    for each in series:
        for metric in metrics:
            if (estimate := each.row.estimates.get(metric)) is None:
                continue
            one = {"row": each.number, "metric": metric, **_interval(each.row, metric)}
            values.append({**one, "kind": "mean", "text": each.row.cell(metric), "n": len(estimate.values)})
            if len(estimate.values) > 1:
                values += [{**one, "kind": "run", "value": _scale(metric, value)} for value in estimate.values]
            if before := each.row.estimates.get(f"init/{metric}"):
                values.append({**one, "kind": "before", "value": _scale(metric, before.mean)})
    if not values:
        return None
    shown = [value for value in values if value["kind"] != "before"]
    bounds = {"": bounds_of(shown, _ENDS), "yes": bounds_of(values, _ENDS)}
    scale = fitted("bounds[before][metric]")
    x = {"field": "value", "type": "quantitative", "title": None, "scale": scale, "axis": NUMBER_AXIS}
    layers = [
        layer("mean", {"type": "rule", "strokeWidth": 2}, {"x": {**x, "field": "low"}, "x2": {"field": "high"}}),
        layer("before", {"type": "tick", "thickness": 3, "color": "#8C8C8C"}, {"x": x}, colour=False),
        layer("run", {"type": "point", "size": 30, "opacity": 0.6, "yOffset": 9}, {"x": x}),
        layer("mean", {"type": "point", "size": 80, "filled": True}, {"x": x, "tooltip": tooltip()}),
    ]
    lines = max(each.label.count("\n") + 1 for each in series)
    spec = {
        **specify(series, values, _named(metrics), {"bounds": bounds, "before": ""}),
        "height": len(series) * max(34, 6 + LABEL_LINE * lines),
        "encoding": {
            "y": {
                "field": "label",
                "type": "nominal",
                "title": None,
                "scale": {"domain": [each.label for each in series]},
                "axis": {"labelExpr": "split(datum.value, '\\n')", "labelLimit": 0, "ticks": False, "grid": True},
            }
        },
        "layer": layers,
    }
    has_before = any(value["kind"] == "before" for value in values)
    toggle = [Control("before", "Before training", [("", "not shown"), ("yes", "grey bar")])] if has_before else []
    return Figure(
        "accuracy",
        "Means with intervals",
        "Filled: mean over seeds, with its 95 % interval. Open: single runs.",
        f"{', '.join(metrics)} of each row with 95 % intervals; the numbers are in the leaderboard.",
        spec,
        [Control("metric", "Metric", [(metric, metric) for metric in metrics]), *toggle],
    )


def _against(series: Sequence[Series], metrics: Sequence[str], axes: Sequence[str]) -> Figure | None:
    """Each row by what its training has cost."""
    values: list[dict[str, Any]] = []
    for each in series:
        costs = {axis: each.row.estimates[axis].mean for axis in axes if axis in each.row.estimates}
        for metric in metrics:
            if metric in each.row.estimates and costs:
                text = each.row.cell(metric)
                values.append(
                    {"row": each.number, "metric": metric, **_interval(each.row, metric), **costs, "text": text}
                )
    if not values:
        return None
    spread = {axis: [value[axis] for value in values if axis in value] for axis in axes}
    is_log = any(max(costs) > 20 * min(costs) > 0 for costs in spread.values())
    x = {
        "field": "cost",
        "type": "quantitative",
        "title": None,
        "scale": fitted("spans[axis]") | ({"type": "log"} if is_log else {}),
        "axis": COST_AXIS,
    }
    y = {"field": "value", "type": "quantitative", "title": None, "scale": fitted("bounds[metric]")}
    spans = {axis: fit(costs, is_log=is_log) for axis, costs in spread.items()}
    spec = {
        **specify(
            series,
            values,
            _named(metrics),
            {"spans": spans, "bounds": bounds_of(values, _ENDS)},
            axes,
        ),
        "height": 320,
        "encoding": {"x": x},
        "layer": [
            layer(None, {"type": "rule", "strokeWidth": 2}, {"y": {**y, "field": "low"}, "y2": {"field": "high"}}),
            layer(None, {"type": "point", "size": 90, "filled": True}, {"y": y, "tooltip": tooltip("cost")}),
        ],
    }
    equal = [AXES[axis] for axis, costs in spread.items() if max(costs) <= 1.01 * min(costs)]
    note = f" All rows have spent the same {' and '.join(equal)}, to 1 %." if equal and len(series) > 1 else ""
    controls = [
        Control("metric", "Metric", [(metric, metric) for metric in metrics]),
        Control("axis", "Against", [(axis, AXES[axis]) for axis in axes]),
    ]
    return Figure(
        "compute",
        "Accuracy against compute" if is_accuracy(metrics[0]) else "Metrics against compute",
        f"Mean over seeds with its 95 % interval; further left is cheaper.{note}",
        f"{', '.join(metrics)} of each row against {', '.join(AXES[axis] for axis in axes)}.",
        spec,
        controls,
    )


def _labels(series: Sequence[Series]) -> Figure | None:
    """Accuracy by number of labels per class, with training from scratch on the same labels beside it."""
    values: list[dict[str, Any]] = []
    numbers: set[str] = set()
    probes: dict[str, None] = {}
    for each in series:
        for key, estimate in each.row.estimates.items():
            found = LABEL_KEYS.fullmatch(key)
            if found is None or found[2].endswith("_std"):
                continue
            numbers.add(found[1])
            probes[found[2]] = None
            low, high = estimate.interval(True) or (estimate.mean, estimate.mean)
            one = {"value": 100 * estimate.mean, "low": 100 * low, "high": 100 * high, "labels": found[1]}
            values.append({"row": each.number, **one, "metric": found[2], "text": f"{100 * estimate.mean:.1f} %"})
    if not values:
        return None
    order = [*sorted(numbers - {"all"}, key=int), *sorted(numbers & {"all"})]
    values.sort(key=lambda value: order.index(value["labels"]))
    shown = sorted(probes, key=lambda probe: (probe != "linear", probe))
    x = {
        "field": "labels",
        "type": "ordinal",
        "title": "labels per class",
        "sort": None,
        "scale": {"type": "point", "padding": 0.3, "domain": order},
        "axis": {"labelAngle": 0},
    }
    y = {"field": "value", "type": "quantitative", "title": None, "scale": fitted("bounds[metric]")}
    names = {probe: f"few/<n>/{probe} (%)" for probe in shown}
    spec = {
        **specify(series, values, names, {"bounds": bounds_of(values, _ENDS)}),
        "height": 320,
        "encoding": {"x": x},
        "layer": [
            layer(None, {"type": "line"}, {"y": y, **DASHED}),
            layer(None, {"type": "rule"}, {"y": {**y, "field": "low"}, "y2": {"field": "high"}}),
            layer(None, {"type": "point", "filled": True, "size": 70}, {"y": y, "tooltip": tooltip("labels")}),
        ],
    }
    return Figure(
        "labels",
        "Accuracy against labels",
        "Probes that know so many labels per class; scratch is the same network trained with only these labels.",
        f"Accuracy of {', '.join(shown)} with {', '.join(order)} labels per class for each row.",
        spec,
        [Control("metric", "Probe", [(probe, probe) for probe in shown])],
    )


def _curves(series: Sequence[Series], headlines: Sequence[str], axes: Sequence[str]) -> Figure | None:
    """Metrics during training, with the range over seeds."""
    values: list[dict[str, Any]] = []
    for each in series:
        costs = {axis: each.row.estimates[axis].mean for axis in axes if axis in each.row.estimates}
        for metric, points in average_curves(each.row.runs).items():
            for point in points:
                mean, low, high = (_scale(metric, value) for value in point[1:4])
                spent = {axis: point.share * cost for axis, cost in costs.items()}
                text = f"{mean:.4g} ({low:.4g} to {high:.4g}, n={point.n})"
                values.append(
                    {
                        "row": each.number,
                        "metric": metric,
                        "value": mean,
                        "low": low,
                        "high": high,
                        "text": text,
                        **spent,
                    }
                )
    known = {value["metric"] for value in values}
    metrics = [*(metric for metric in headlines if metric in known), *sorted(known.difference(headlines))]
    if not values or not axes:
        return None
    x = {"field": "cost", "type": "quantitative", "title": None, "axis": COST_AXIS, "scale": {"nice": False}}
    y = {"field": "value", "type": "quantitative", "title": None, "scale": fitted("bounds[metric]")}
    spec = {
        **specify(series, values, _named(metrics), {"bounds": bounds_of(values, _ENDS)}, axes),
        "height": 320,
        "encoding": {"x": x},
        "layer": [
            layer(
                None,
                {"type": "area", "line": False},
                {"y": {**y, "field": "low"}, "y2": {"field": "high"}, "opacity": emphasize(0.18, 0.03)},
            ),
            layer(None, {"type": "line", "strokeWidth": 2}, {"y": y, **DASHED}),
            layer(None, {"type": "point", "filled": True, "size": 40}, {"y": y, "tooltip": tooltip("cost")}),
        ],
    }
    controls = [
        Control("metric", "Metric", [(metric, metric) for metric in metrics]),
        Control("axis", "Against", [(axis, AXES[axis]) for axis in axes]),
    ]
    return Figure(
        "curves",
        "Learning curves",
        "Line: mean over seeds. Band: from the lowest to the highest run.",
        f"{', '.join(metrics)} of each row during training.",
        spec,
        controls,
    )


def _named(metrics: Iterable[str]) -> dict[str, str]:
    """Titles of the metrics."""
    notes = {key: " (%)" if is_accuracy(key) else " (lower is better)" if is_better_low(key) else "" for key in metrics}
    return {key: f"{key}{note}" for key, note in notes.items()}


def _scale(metric: str, value: float) -> float:
    return 100 * value if is_accuracy(metric) else value


def _interval(row: ComparisonRow, metric: str) -> dict[str, float]:
    """Mean and bounds of the interval; without an interval both bounds are the mean."""
    estimate = row.estimates[metric]
    low, high = estimate.interval(is_accuracy(metric)) or (estimate.mean, estimate.mean)
    return {name: _scale(metric, value) for name, value in (("value", estimate.mean), ("low", low), ("high", high))}
