"""Mean rank over the data sets that encoders are transferred to: the best row of a set has rank 1, equal ones share.

As methods are compared over several data sets since Demšar, "Statistical Comparisons of Classifiers over Multiple Data
Sets", JMLR 2006, Section 3.2.
"""

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from ssl_zoo.report.row import ComparisonRow

KINDS = {
    "transfer": "Transfer, linear probe",
    "transfer_knn": "Transfer, nearest neighbours",
    "sentence_pairs": "Sentence pairs",
}
"""What the metrics of several sets begin with, and their heading."""
_OF_A_SET = re.compile(rf"({'|'.join(KINDS)})/(?!mean/)([^/]+)/(top1|spearman)")


class Ranking(NamedTuple):
    """Ranks of the rows that have been measured on several sets, of one kind of metric.

    Attributes:
        kind: key of `KINDS`.
        rows: R rows, the best mean rank first.
        sets: name of each set, S in all, and the key of its metric.
        ranks: (R, S), among these rows; NaN where a row has not been measured on a set that another has.
        mean_ranks: (R,) over the sets that all rows have been measured on.
        notes: on the sets that are left out.
    """

    kind: str
    rows: list[ComparisonRow]
    sets: dict[str, str]
    ranks: np.ndarray
    mean_ranks: np.ndarray
    notes: list[str]


def find_rankings(rows: Sequence[ComparisonRow], name: Callable[[ComparisonRow], str]) -> list[Ranking]:
    """Ranks the rows by each kind of metric of which two rows share two sets or more.

    Args:
        rows: of a comparison.
        name: what to call a row.
    """
    found = [_ranking(kind, rows, name) for kind in KINDS]
    return [ranking for ranking in found if ranking is not None]


def _ranking(kind: str, rows: Sequence[ComparisonRow], name: Callable[[ComparisonRow], str]) -> Ranking | None:
    sets: dict[str, str] = {}
    having: list[ComparisonRow] = []
    for row in rows:
        own = {one[2]: key for key in row.estimates if (one := _OF_A_SET.fullmatch(key)) and one[1] == kind}
        sets |= own
        having += [row] if own else []
    shared = [one for one, key in sets.items() if all(key in row.estimates for row in having)]
    if len(having) < 2 or len(shared) < 2:
        return None
    sets = {one: sets[one] for one in [*shared, *(one for one in sets if one not in shared)]}
    values = np.array(
        [[row.estimates[key].mean if key in row.estimates else np.nan for key in sets.values()] for row in having]
    )
    ranks = np.stack([average_ranks(column) for column in values.T], axis=1)
    means = ranks[:, : len(shared)].mean(axis=1)
    order = np.argsort(means, kind="stable")
    notes = [
        f"{one} is not in the mean rank, since it was not measured for "
        f"{', '.join(name(row) for row in having if key not in row.estimates)}."
        for one, key in sets.items()
        if one not in shared
    ]
    if without := [name(row) for row in rows if all(row is not one for one in having)]:
        notes.append(f"Not measured at all for {', '.join(without)}.")
    return Ranking(kind, [having[place] for place in order], sets, ranks[order], means[order], notes)


def average_ranks(values: np.ndarray) -> np.ndarray:
    """Ranks (n,) of values (n,), 1 for the highest; equal values have the mean of their ranks, NaN has none."""
    above = (values[None] > values[:, None]).sum(axis=1)
    equal = (values[None] == values[:, None]).sum(axis=1)
    return np.where(np.isnan(values), np.nan, above + (equal + 1) / 2)
