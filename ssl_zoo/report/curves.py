"""Learning curves: metrics that runs wrote to metrics.jsonl during training, as mean and range over seeds."""

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

METRICS_NAME = "metrics.jsonl"


class CurvePoint(NamedTuple):
    """One point of the learning curve of several runs.

    Attributes:
        share: spent part of the budget, in [0, 1].
        mean: over the runs.
        low: of the lowest run.
        high: of the highest run.
        n: number of runs.
    """

    share: float
    mean: float
    low: float
    high: float
    n: int


def read_metrics(path: Path | str) -> dict[int, dict[str, float]]:
    """Reads a `metrics.jsonl`: the last value of each metric at each step, NaN for one that is not finite.

    Ignores a partial last line, and rows that an interrupted run logged after the checkpoint it was resumed from.

    Raises:
        OSError: if the file cannot be read.
        ValueError: if the file is damaged.
    """
    table: dict[int, dict[str, float]] = {}
    *lines, _ = Path(path).read_text(encoding="ascii").split("\n")
    for line in lines:
        row = json.loads(line)
        if not isinstance(row, dict) or not isinstance(step := row.pop("step", None), int):
            raise ValueError(f"a line without a step: {line[:80]}")
        if row.pop("resumed", False):
            table = {earlier: values for earlier, values in table.items() if earlier <= step}
        else:
            table.setdefault(step, {}).update({k: math.nan if x is None else x for k, x in row.items()})
    return table


def read_curves(run: Mapping[str, Any]) -> dict[str, dict[float, float]]:
    """Returns the metrics of a run during training.

    Args:
        run: results of a completed run, with its "folder".

    Returns:
        Share of the budget -> value, by metric, with the values before and after training at 0 and 1. Only metrics
        that were measured in between; {} without a readable `metrics.jsonl`.
    """
    steps = run["budget"].get("steps")
    try:
        table = read_metrics(Path(run["folder"]) / METRICS_NAME)
    except (OSError, ValueError, AttributeError, TypeError):
        return {}
    curves: dict[str, dict[float, float]] = {}
    for step, row in sorted(table.items()):
        for key, value in row.items():
            inside = steps and 0 < step < steps and isinstance(value, int | float) and math.isfinite(value)
            if inside and key.startswith("eval/"):
                curves.setdefault(key.removeprefix("eval/"), {})[step / steps] = float(value)
    for metric, curve in curves.items():
        for share, key in ((0.0, f"init/{metric}"), (1.0, metric)):
            if (value := run["metrics"].get(key)) is not None:
                curve[share] = value
    return {metric: dict(sorted(curve.items())) for metric, curve in curves.items()}


def average_curves(runs: Sequence[Mapping[str, Any]]) -> dict[str, list[CurvePoint]]:
    """Returns mean and range of the curves of runs that differ in their seed, by metric.

    Points that some of the runs with a curve lack are left out, because a mean over other runs would show as a jump.
    """
    found = [read_curves(run) for run in runs]
    averages: dict[str, list[CurvePoint]] = {}
    for metric in sorted(set().union(*found)):
        curves = [curves[metric] for curves in found if metric in curves]
        shared = sorted(set.intersection(*(set(curve) for curve in curves)))
        points = []
        for share in shared:
            values = [curve[share] for curve in curves]
            points.append(CurvePoint(share, statistics.fmean(values), min(values), max(values), len(values)))
        if len(points) > 1:
            averages[metric] = points
    return averages
