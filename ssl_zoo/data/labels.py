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
