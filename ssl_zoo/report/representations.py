"""Representations of the rows of a comparison: how alike they are, and a map of each, of the same examples."""

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ssl_zoo.report.cka import MIN_EXAMPLES, centred_gram
from ssl_zoo.report.kept_features import KeptFeatures, evenly_spaced, read_features
from ssl_zoo.report.row import ComparisonRow

MAX_ROWS = 40
"""Rows that are compared; further ones are left out, and a note says so."""
RUNS_PER_ROW = 2
"""Runs of each row that are compared: of two, the diagonal says how alike two seeds are."""
MAX_MAPS = 12
POINTS_PER_MAP = 300


class EmbeddingMap(NamedTuple):
    """Where a run's encoder places some examples.

    Attributes:
        row: the row.
        seed: of the run.
        places: (n, 2), in [-1, 1], turned to the first map.
    """

    row: ComparisonRow
    seed: Any
    places: np.ndarray


class Representations(NamedTuple):
    """Representations of the same N examples.

    Attributes:
        rows: R rows, in the order of the table.
        cka: (R, R), mean over pairs of runs; on the diagonal of two seeds. NaN where unknown.
        examples: N.
        maps: of rows whose runs have drawn one.
        y: (n,) int64, the labels of the examples in the maps, -1 where unknown.
        names: of the classes.
        notes: on what is left out.
    """

    rows: list[ComparisonRow]
    cka: np.ndarray
    examples: int
    maps: list[EmbeddingMap]
    y: np.ndarray
    names: list[str]
    notes: list[str]


Kept = list[tuple[Any, KeptFeatures]]
"""Seed and features of the runs of a row."""


def compare_representations(
    rows: Sequence[ComparisonRow], name: Callable[[ComparisonRow], str]
) -> Representations | None:
    """Compares the rows that have kept features of the same examples; None without any.

    Args:
        rows: of the comparison.
        name: what to call a row.
    """
    notes: list[str] = []
    found: list[tuple[ComparisonRow, Kept]] = []
    for row in rows:
        try:
            kept = _kept(row)
        except ValueError as error:
            notes.append(f"{name(row)} is left out: {error}.")
            continue
        found.append((row, kept))
    counts = Counter(_key(kept[0][1]) for _, kept in found if kept)
    if not counts:
        return None
    most = counts.most_common(1)[0][0]
    same = [(row, its) for row, kept in found if (its := [one for one in kept if _key(one[1]) == most])]
    if without := [name(row) for row, kept in found if not kept]:
        notes.append(
            f"No features were kept by {', '.join(without)}. To add them: "
            "python run.py task=evaluate encoder=<run folder>"
        )
    if others := [name(row) for row, kept in found if kept and all(_key(one[1]) != most for one in kept)]:
        notes.append(f"Of other examples, so not compared: {', '.join(others)}.")
    if len(same) > MAX_ROWS:
        notes.append(f"The first {MAX_ROWS} of {len(same)} rows.")
        same = same[:MAX_ROWS]
    sample = same[0][1][0][1]
    points = evenly_spaced(len(sample.x), POINTS_PER_MAP)
    drawn = [(row, one) for row, kept in same if (one := next((it for it in kept if it[1].places is not None), None))]
    if len(drawn) > MAX_MAPS:
        notes.append(f"Maps of the first {MAX_MAPS} of {len(drawn)} rows.")
    maps: list[EmbeddingMap] = []
    for row, (seed, kept_features) in drawn[:MAX_MAPS]:
        assert kept_features.places is not None
        places = _fit_map(kept_features.places[points], maps[0].places if maps else None)
        maps.append(EmbeddingMap(row, seed, places))
    return Representations(
        [row for row, _ in same], _similarities([kept for _, kept in same]), len(sample.x), maps, sample.y[points],
        sample.names, notes,
    )  # fmt: skip


def _kept(row: ComparisonRow) -> Kept:
    """Seed and features of the first runs of a row that have kept some."""
    found: Kept = []
    for run in row.runs:
        if len(found) < RUNS_PER_ROW:
            kept = read_features(Path(run["folder"]))
            found += [] if kept is None or len(kept.x) < MIN_EXAMPLES else [(run["seed"], kept)]
    return found


def _key(kept: KeptFeatures) -> tuple[str, int]:
    """What is equal for features of the same examples."""
    return kept.examples, len(kept.x)


def _similarities(rows: Sequence[Kept]) -> np.ndarray:
    """CKA of each pair of rows, mean over their pairs of different runs."""
    grams = np.stack([centred_gram(kept.x) for row in rows for _, kept in row])
    of = np.array([number for number, row in enumerate(rows) for _ in row])
    between = (grams @ grams.T).astype(np.float64)
    np.fill_diagonal(between, np.nan)
    found = np.full((len(rows), len(rows)), np.nan)
    for one in range(len(rows)):
        for other in range(len(rows)):
            values = between[np.ix_(of == one, of == other)]
            if not np.isnan(values).all():
                found[one, other] = np.nanmean(values)
    return found


def _fit_map(places: np.ndarray, first: np.ndarray | None) -> np.ndarray:
    """Places in [-1, 1], turned and mirrored so that they are nearest to those of the first map (Procrustes)."""
    places = places - places.mean(axis=0)
    if first is not None:
        u, _, v = np.linalg.svd(places.T @ first)
        places = places @ (u @ v)
    fitted: np.ndarray = places / max(float(np.abs(places).max(initial=0.0)), 1e-12)
    return fitted
