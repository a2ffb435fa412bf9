"""How far a score that needs no labels can be trusted to choose between runs, given their accuracies.

Two questions are kept apart: does it order the runs *within* a method, such as its seeds and settings, and does it
order the methods themselves, *across*? And what does choosing by it cost: its regret, in accuracy?
"""

import math
import random
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any, NamedTuple


class ScoredRun(NamedTuple):
    """A run with a score and an accuracy.

    Attributes:
        method: what the run is one of several runs of.
        score: higher is taken to be better.
        accuracy: what the score should predict.
    """

    method: str
    score: float
    accuracy: float


SCORES: dict[str, Callable[[float], float]] = {
    "rankme": float,
    "feature_std": float,
    "lidar": float,
    "alpha_req": lambda value: -abs(value - 1),  # its authors find the best features near 1
    "alignment": lambda value: -value,
    "uniformity": lambda value: -value,
    "clid/learnability": float,
    "clid/dimension": float,
}
"""For each metric without labels, a function of it that its authors take to be higher for better features."""


def clid_scores(runs: Sequence[Mapping[str, float | None]]) -> list[float | None]:
    """CLID of each run: learnability plus dimension, each standardised over the runs that have both.

    Args:
        runs: metrics of each.
    """
    keys = ("clid/learnability", "clid/dimension")
    known = [i for i, metrics in enumerate(runs) if all(metrics.get(key) is not None for key in keys)]
    scores: list[float | None] = [None] * len(runs)
    if len(known) < 2:
        return scores
    totals = dict.fromkeys(known, 0.0)
    for key in keys:
        values: dict[int, Any] = {i: runs[i][key] for i in known}
        mean, deviation = statistics.fmean(values.values()), statistics.pstdev(values.values())
        for i, value in values.items():
            totals[i] += (value - mean) / deviation if deviation else 0.0
    for i, total in totals.items():
        scores[i] = total
    return scores


def scored_runs(runs: Sequence[tuple[str, Mapping[str, float | None]]], score: str, accuracy: str) -> list[ScoredRun]:
    """The runs that have both metrics.

    Args:
        runs: method and metrics of each.
        score: key of `SCORES`, or "clid".
        accuracy: key of an accuracy.
    """
    clid = clid_scores([metrics for _, metrics in runs])
    found = []
    for (method, metrics), combined in zip(runs, clid, strict=True):
        value, truth = combined if score == "clid" else metrics.get(score), metrics.get(accuracy)
        if value is not None and truth is not None and math.isfinite(value):
            found.append(ScoredRun(method, value if score == "clid" else SCORES[score](value), truth))
    return found


def across_methods(runs: Iterable[ScoredRun]) -> tuple[float, int]:
    """Spearman's correlation over methods, each with its mean score and accuracy, and the number of methods.

    Returns:
        NaN for fewer than three methods, or where all scores or all accuracies are equal.
    """
    from scipy.stats import spearmanr  # slow to import

    groups = _by_method(runs).values()
    scores = [statistics.fmean(run.score for run in group) for group in groups]
    accuracies = [statistics.fmean(run.accuracy for run in group) for group in groups]
    if len(scores) < 3 or len(set(scores)) < 2 or len(set(accuracies)) < 2:
        return math.nan, len(scores)
    return float(spearmanr(scores, accuracies)[0]), len(scores)


def within_methods(runs: Iterable[ScoredRun]) -> tuple[float, int]:
    """Kendall's tau over the pairs of runs of one method, and their number.

    It is the share of pairs that the score orders as the accuracy does, minus the share that it orders the other way; a
    pair with equal accuracies does not count, and one with equal scores is ordered neither way.

    Returns:
        NaN where there is no such pair.
    """
    signs = [
        math.copysign(1, a.accuracy - b.accuracy) * ((a.score > b.score) - (a.score < b.score))
        for group in _by_method(runs).values()
        for a, b in combinations(group, 2)
        if a.accuracy != b.accuracy
    ]
    return (statistics.fmean(signs) if signs else math.nan), len(signs)


def regret(runs: Sequence[ScoredRun]) -> float:
    """Accuracy of the best run minus that of the run with the highest score; the mean of those with equal scores."""
    top = max(run.score for run in runs)
    chosen = [run.accuracy for run in runs if run.score == top]
    return max(run.accuracy for run in runs) - statistics.fmean(chosen)


def regret_of_chance(runs: Sequence[ScoredRun]) -> float:
    """Accuracy of the best run minus that of a run taken at random, on average."""
    return max(run.accuracy for run in runs) - statistics.fmean(run.accuracy for run in runs)


def halves(methods: Iterable[str], seed: int) -> tuple[set[str], set[str]]:
    """Divides methods at random into two halves, so that runs of one method are never in both."""
    names = sorted(set(methods))
    random.Random(seed).shuffle(names)
    return set(names[: len(names) // 2]), set(names[len(names) // 2 :])


def _by_method(runs: Iterable[ScoredRun]) -> dict[str, list[ScoredRun]]:
    groups: dict[str, list[ScoredRun]] = defaultdict(list)
    for run in runs:
        groups[run.method].append(run)
    return groups
