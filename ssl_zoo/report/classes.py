"""Accuracy by class: of each row, and its difference to the baseline, tested class by class.

The labels that the runs have kept (`ssl_zoo.report.outcomes`) say which class each test example is of. A difference is
over the seeds that both rows have, by Student's t; with one shared seed by McNemar's exact test on the examples of the
class. p is corrected by Holm for all rows and classes of the data.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ssl_zoo.report import paired
from ssl_zoo.report.difference import LEVEL, Difference
from ssl_zoo.report.outcomes import ClassLabels, Outcomes, outcomes_of_run
from ssl_zoo.report.row import ComparisonRow

MAX_TESTS = 5000
"""Differences that may be tested; of more none is, as Holm's correction would leave nothing."""


class ClassDifference(NamedTuple):
    """A row's accuracy on a class less its baseline's; p after Holm's correction, None where there is no test."""

    mean: float
    p: float | None
    p_holm: float | None

    @property
    def is_shown(self) -> bool:
        """Whether the test shows a difference at 5 %, after Holm's correction."""
        return self.p_holm is not None and self.p_holm <= LEVEL


class ByClass(NamedTuple):
    """Accuracy by class of the rows that were tested on the same examples.

    Attributes:
        metric: the accuracy.
        data: name of the data.
        names: of the C classes.
        counts: test examples of each class.
        rows: R of them, in the order of the table.
        accuracies: (R, C), mean over the runs; NaN for a class without test examples.
        differences: for each row the difference of each class, [] for a row that is compared with no other.
        order: classes that have test examples by how far the rows differ, the largest difference first.
    """

    metric: str
    data: str
    names: list[str]
    counts: list[int]
    rows: list[ComparisonRow]
    accuracies: np.ndarray
    differences: list[list[ClassDifference]]
    order: list[int]


Runs = dict[int | None, list[Outcomes]]
"""The outcomes of a row by seed."""


def accuracies_by_class(
    metric: str,
    rows: Sequence[ComparisonRow],
    found: Sequence[Difference],
    chosen: bool,
    name: Callable[[ComparisonRow], str],
) -> tuple[list[ByClass], list[str]]:
    """Accuracies by class, one table per set of test examples.

    Args:
        metric: an accuracy.
        rows: of the comparison.
        found: the differences of the metric, which tell each row's baseline and whether the two can be compared.
        chosen: whether the baseline is the best row, rather than one that was named beforehand: p is corrected for all
            pairs of rows then.
        name: what to call a row.

    Returns:
        The tables, and sentences on the rows that are not in them.
    """
    baselines = {id(each.row): each.baseline for each in found if each.mean is not None}
    groups: dict[str, list[ComparisonRow]] = defaultdict(list)
    kept: dict[int, Runs] = {}
    without, notes = [], []
    for row in rows:
        try:
            outcomes = [(run["seed"], outcomes_of_run(run, metric)) for run in row.runs if _has(run, metric)]
        except ValueError as error:
            notes.append(f"{name(row)} is left out: {error}.")
            continue
        labelled = [(seed, one) for seed, one in outcomes if one is not None and one.labels is not None]
        if labelled:
            which = labelled[0][1].examples
            runs: Runs = defaultdict(list)
            for seed, one in labelled:
                if one.examples == which:
                    runs[seed].append(one)
            kept[id(row)] = runs
            groups[which].append(row)
        elif any(one is not None for _, one in outcomes):
            without.append(name(row))
    if without:
        notes.append(
            f"No labels of the test examples were kept by {', '.join(without)}, as before they were recorded. "
            "To add them: python run.py task=evaluate encoder=<run folder>"
        )
    return [_by_class(metric, group, kept, baselines, chosen) for group in groups.values()], notes


def _has(run: dict[str, Any], metric: str) -> bool:
    return run["metrics"].get(metric) is not None


def _by_class(
    metric: str,
    rows: list[ComparisonRow],
    kept: dict[int, Runs],
    baselines: dict[int, ComparisonRow],
    chosen: bool,
) -> ByClass:
    labels = next(iter(kept[id(rows[0])].values()))[0].labels
    assert labels is not None
    shares = [np.mean([_shares(one, labels) for its in kept[id(row)].values() for one in its], axis=0) for row in rows]
    accuracies = np.stack(shares)
    here = {id(row) for row in rows}
    pairs = [baselines[id(row)] if id(baselines.get(id(row))) in here else None for row in rows]
    family = len(labels.names) * (len(rows) * (len(rows) - 1) // 2 if chosen else sum(map(bool, pairs)))
    differences = [
        [] if other is None else _differences(kept[id(row)], kept[id(other)], labels, family <= MAX_TESTS)
        for row, other in zip(rows, pairs, strict=True)
    ]
    p = [one.p for row in differences for one in row if one.p is not None]
    unseen = [1.0] * (family - len(p)) if chosen else []  # of the pairs that another choice would have compared
    corrected = iter(paired.holm([*p, *unseen]))
    differences = [
        [one if one.p is None else one._replace(p_holm=next(corrected)) for one in row] for row in differences
    ]
    counts = np.bincount(labels.y, minlength=len(labels.names))
    spread = np.where(counts > 0, np.ptp(accuracies, axis=0), -1.0)
    order = [number for number in np.argsort(-spread, kind="stable").tolist() if counts[number]]
    return ByClass(metric, rows[0].names["data"], labels.names, counts.tolist(), rows, accuracies, differences, order)


def _shares(one: Outcomes, labels: ClassLabels) -> np.ndarray:
    """Accuracy of each class (C,), NaN for one without examples."""
    counts = np.bincount(labels.y, minlength=len(labels.names))
    right = np.bincount(labels.y, weights=one.right, minlength=len(labels.names))
    return np.divide(right, counts, out=np.full(len(counts), np.nan), where=counts > 0)


def _differences(a: Runs, b: Runs, labels: ClassLabels, tested: bool) -> list[ClassDifference]:
    """Accuracies by class of one row less those of another."""
    shared = sorted(seed for seed in a.keys() & b.keys() if seed is not None)
    seeds: list[list[Any]] = [shared, shared] if shared else [list(a), list(b)]
    one, other = (
        np.stack([np.mean([_shares(it, labels) for it in runs[seed]], axis=0) for seed in its])
        for runs, its in zip((a, b), seeds, strict=True)
    )  # (S, C)
    single = len(shared) == 1 and len(a[shared[0]]) == len(b[shared[0]]) == 1
    found = []
    for number in range(len(labels.names)):
        mean, p = float(one[:, number].mean() - other[:, number].mean()), None
        if tested and np.isfinite(mean) and len(shared) > 1:
            try:
                p = paired.paired_t(one[:, number].tolist(), other[:, number].tolist()).p
            except ValueError:  # equal in all seeds
                p = None
        elif tested and np.isfinite(mean) and single:
            its = labels.y == number
            p = paired.mcnemar(a[shared[0]][0].right[its], b[shared[0]][0].right[its]).p
        found.append(ClassDifference(mean, p, None))
    return found
