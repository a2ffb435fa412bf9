"""What counts as the label of an example: one rule for all tables and files, of images and of text."""

import math
import re
from collections.abc import Iterable, Sequence

import numpy as np

NUMBER = re.compile(r"[+-]?\d+(\.\d*)?")


def as_label(value: object, where: str) -> str | None:
    """The name of the class in a cell of a table, None where it is unknown.

    Null, NaN, an empty cell and negative numbers mean "unknown". Whole floats are integers, in text formats too, where
    "1.0", "+1" and 1 are one class. Any other string is a name ("NA", "nan" and "null" are names), without white space
    at its ends; booleans are named "True" and "False".

    Args:
        value: the cell.
        where: the key and the place of the cell, with which the error message begins.

    Raises:
        ValueError: for a number with a fraction, a list, or anything else that names no class.
    """
    if value is None or isinstance(value, bool):
        return None if value is None else str(value)
    if isinstance(value, str):
        value = value.strip()
        if not NUMBER.fullmatch(value) or value.isdecimal():
            return value or None
        value = float(value)
    if isinstance(value, int):
        return None if value < 0 else str(value)
    if isinstance(value, float) and (math.isnan(value) or value < 0):
        return None
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    raise ValueError(f"{where} holds {value!r}, which is no class. Give an integer or a name, or nothing for unknown")


def limit_labels(labels: np.ndarray, per_class: int | None, fraction: float | None, seed: int) -> np.ndarray:
    """Keeps the labels of a random sample of each class and sets the others to -1.

    Args:
        labels: (N,) int64, -1 where unknown.
        per_class: number of labels to keep of each class, all where a class has fewer; None: see `fraction`.
        fraction: share of each class's labels to keep, one at least; None with `per_class` None keeps all.
        seed: of the sample.

    Returns:
        (N,) int64.
    """
    if per_class is None and fraction is None:
        return labels
    kept, random = np.full_like(labels, -1), np.random.default_rng(seed)
    for label in np.unique(labels[labels >= 0]):
        members = random.permutation(np.flatnonzero(labels == label))
        count = per_class if per_class is not None else max(1, round((fraction or 0) * len(members)))
        kept[members[:count]] = label
    return kept


def check_label_limits(per_class: object, fraction: object) -> None:
    """Raises ValueError for a value of data.labels_per_class or data.label_fraction that no sample can have."""
    if per_class is not None and fraction is not None:
        raise ValueError(f"data.labels_per_class={per_class}, data.label_fraction={fraction}: give only one of the two")
    if per_class is not None and (type(per_class) is not int or per_class < 1):
        raise ValueError(f"data.labels_per_class={per_class}: give a whole number, 1 or more, or null for all labels")
    if fraction is not None and not (isinstance(fraction, int | float) and 0 < fraction <= 1):
        raise ValueError(f"data.label_fraction={fraction}: give a number above 0, up to 1, or null for all labels")


def sort_names(names: Iterable[str]) -> list[str]:
    """The distinct names, sorted by value if all are numbers, else alphabetically."""
    distinct = sorted(set(names))
    return sorted(distinct, key=int) if all(name.isdecimal() for name in distinct) else distinct


def describe_labels(labels: np.ndarray, class_names: Sequence[str]) -> str:
    """Counts the labels of each class for a message: "2 classes (cat 5, dog 7), 3 unlabelled".

    With a single class it adds that no accuracy is measured.

    Args:
        labels: (N,) int64, -1 where unknown.
        class_names: by label.
    """
    counts = np.bincount(labels[labels >= 0], minlength=len(class_names))
    unknown = len(labels) - int(counts.sum())
    if not counts.any():
        return "no labels"
    if len(counts) <= 10:
        listed = ", ".join(f"{name} {n:,}" for name, n in zip(class_names, counts.tolist(), strict=True))
    else:
        listed = f"{counts.min():,} to {counts.max():,} labels each"
    described = f"{len(counts)} class{'es' * (len(counts) > 1)} ({listed})"
    if np.count_nonzero(counts) < 2:
        described += ", so no accuracy is measured"
    return described + f", {unknown:,} unlabelled" * (unknown > 0)
