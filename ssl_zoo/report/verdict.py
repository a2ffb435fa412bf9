"""One sentence on which method of a comparison did best, or why that cannot be said."""

import statistics
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from ssl_zoo.evaluators.proportion import wilson

METRICS = ("linear/top1", "knn/top1")
"""Accuracies to compare by; the first that all runs have is used."""
WITHOUT_LABELS = (
    "No accuracy to choose by. Scores without labels are not reliable across methods: on our own runs the rank "
    "correlation of RankMe with the linear probe is +0.70 for ResNets, -0.16 for ViTs and +0.25 for text. Look at the "
    "neighbours.png of each run, or make a map of it: python run.py task=map encoder=<run folder>"
)
"""The sentence for data without labels; `benchmarks/label_free.py` prints the correlations."""


def verdict(runs: Sequence[dict[str, Any]]) -> str | None:
    """Says which method has the highest accuracy and whether the second is clearly below it.

    Args:
        runs: results of completed and other runs, see `ssl_zoo.report.results`.

    Returns:
        A sentence; None where the runs are not of several methods on one data set.
    """
    completed = [run for run in runs if run["status"] == "completed"]
    if len({run["method"] for run in completed}) < 2 or len({run["data"] for run in completed}) > 1:
        return None
    metric = next((key for key in METRICS if all(run["metrics"].get(key) is not None for run in completed)), None)
    if metric is None:
        return WITHOUT_LABELS
    values: dict[str, list[float]] = defaultdict(list)
    for run in completed:
        values[run["method"]].append(run["metrics"][metric])
    means = {name: statistics.fmean(found) for name, found in values.items()}
    best, second = sorted(means, key=lambda name: means[name], reverse=True)[:2]
    count = min(run.get("counts", {}).get(metric, 0) for run in completed)
    ahead = f"{100 * (means[best] - means[second]):.1f} points above {second}"
    sentence = f"{best} has the highest {metric}, {means[best]:.1%}, {ahead}"
    if count and wilson(means[best], count)[0] <= means[second]:
        return f"{sentence}; with {count:,} test examples this difference may be chance"
    if min(map(len, values.values())) < 2:
        return f"{sentence}; one seed does not say how much of this is chance: add seed=0,1,2"
    return sentence
