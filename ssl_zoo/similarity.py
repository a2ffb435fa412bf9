"""Nearest neighbours, near-duplicates, outliers and clusters of vectors, by their cosine.

Letters: N vectors, D their width, Q queries. `unit` stands for vectors of length 1, see `normalized`.
"""

import warnings
from collections.abc import Iterator, Sequence

import numpy as np

SAMPLE = 10_000
"""Vectors that clusters are found in."""
_BLOCK = 1024  # vectors that are compared with all others at a time


def normalized(vectors: np.ndarray) -> np.ndarray:
    """The vectors (N, D) with length 1; vectors of zeros stay zero."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: np.ndarray = vectors / np.maximum(lengths, 1e-12)
    return unit


def nearest_rows(
    unit: np.ndarray, queries: np.ndarray, k: int, without: Sequence[int] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The k rows most similar to each query.

    Args:
        unit: (N, D).
        queries: (Q, D), of length 1.
        k: at most all rows are found.
        without: for each query a row that is left out, its own.

    Returns:
        Rows (Q, k) int64 and cosines (Q, k), in descending order.
    """
    cosines = queries @ unit.T
    if without is not None:
        cosines[np.arange(len(queries)), without] = -np.inf
    k = min(k, len(unit) - (without is not None))
    best = np.argpartition(-cosines, min(k, len(unit) - 1), axis=1)[:, :k]
    order = (-np.take_along_axis(cosines, best, 1)).argsort(axis=1, kind="stable")
    rows = np.take_along_axis(best, order, 1)
    return rows, np.take_along_axis(cosines, rows, 1)


def clusters(unit: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Finds groups of similar vectors by k-means, the same each time.

    Args:
        unit: (N, D).
        count: number of groups, at most N.

    Returns:
        The number of the group of each vector (N,) int64, the largest group first, and the rows that are nearest to
        the centres (count,) int64.
    """
    from sklearn.cluster import KMeans

    sample = np.unique(np.linspace(0, len(unit) - 1, SAMPLE).astype(int))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # fewer distinct vectors than clusters
        centres = KMeans(min(count, len(unit)), n_init=1, random_state=0).fit(unit[sample]).cluster_centers_
    distances = (centres**2).sum(axis=1) - 2 * unit @ centres.T  # squared, less a constant of each row
    members = distances.argmin(axis=1)
    by_size = (-np.bincount(members, minlength=len(centres))).argsort(kind="stable")
    return by_size.argsort()[members], distances.argmin(axis=0)[by_size]


def spread_rows(unit: np.ndarray, count: int) -> list[int]:
    """At most `count` rows spread over the data, the same each time: those nearest to the centres of clusters."""
    return sorted(set(clusters(unit, count)[1].tolist()))


def similar_pairs(unit: np.ndarray, threshold: float, most: int) -> list[tuple[float, int, int]]:
    """Cosine and rows (i < j) of the pairs whose cosine is at least `threshold`: the `most` most similar, in order."""
    pairs: list[tuple[float, int, int]] = []
    for start, cosines in _blocks(unit, "near-duplicates"):
        first, second = (cosines >= threshold - 1e-6).nonzero()  # rounding: equal vectors reach 1 - 1e-7
        is_new = first + start < second
        first, second = first[is_new], second[is_new]
        pairs += zip(cosines[first, second].tolist(), (first + start).tolist(), second.tolist(), strict=True)
        pairs = sorted(pairs, key=lambda pair: (-pair[0], *pair[1:]))[:most]
    return pairs


def mean_similarities(unit: np.ndarray, k: int) -> np.ndarray:
    """The mean cosine (N,) of each vector with its k nearest neighbours."""
    k = min(k, len(unit) - 1)
    means = [
        np.partition(cosines, cosines.shape[1] - k, axis=1)[:, cosines.shape[1] - k :].mean(axis=1)
        for _, cosines in _blocks(unit, "outliers")
    ]
    return np.concatenate(means)


def _blocks(unit: np.ndarray, what: str) -> Iterator[tuple[int, np.ndarray]]:
    """Cosines of some rows with all rows, with the number of the first; those of a row with itself are -inf."""
    from rich.progress import track

    for start in track(range(0, len(unit), _BLOCK), what):
        cosines = unit[start : start + _BLOCK] @ unit.T
        own = np.arange(len(cosines))
        cosines[own, start + own] = -np.inf
        yield start, cosines
