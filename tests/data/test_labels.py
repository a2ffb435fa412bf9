"""One rule for what is a label, its order, and the line that counts labels."""

import math

import numpy as np
import pytest

from ssl_zoo.data.labels import as_label, describe_labels, sort_names


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (3, "3"),
        (3.0, "3"),
        ("3", "3"),
        ("3.0", "3"),
        (" cat\t", "cat"),
        (True, "True"),
        ("True", "True"),
        ("NA", "NA"),
        ("nan", "nan"),
        ("null", "null"),
        ("+1", "1"),
        ("007", "007"),
        ("1e5", "1e5"),
        ("-", "-"),
        (0, "0"),
        (None, None),
        ("", None),
        ("  ", None),
        (math.nan, None),
        (-1, None),
        (-1.0, None),
        ("-1", None),
        ("-1.0", None),
    ],
)
def test_labels(value: object, name: str | None) -> None:
    assert as_label(value, "here") == name


@pytest.mark.parametrize("value", [0.5, "0.5", [1, 1], {"a": 1}, b"cat", math.inf])
def test_what_is_no_label_is_named(value: object) -> None:
    with pytest.raises(
        ValueError, match=r"^data.label_column=y: a.csv, line 2 holds .*, which is no class. Give an int"
    ):
        as_label(value, "data.label_column=y: a.csv, line 2")


def test_numbers_count_up() -> None:
    assert sort_names(["10", "9", "9"]) == ["9", "10"]
    assert sort_names(["10", "9", "a"]) == ["10", "9", "a"]
    assert sort_names(["1", "01", "001"]) == ["001", "01", "1"]  # one order, whatever that of the set


def test_the_line_that_counts() -> None:
    assert describe_labels(np.array([0, 1, 1, -1]), ["cat", "dog"]) == "2 classes (cat 1, dog 2), 1 unlabelled"
    assert describe_labels(np.array([-1, -1]), ["cat"]) == "no labels"
    assert describe_labels(np.array([-1]), []) == "no labels"
    assert describe_labels(np.array([0, 0]), ["cat"]) == "1 class (cat 2), so no accuracy is measured"
    many = np.repeat(np.arange(12), np.arange(3, 15))
    assert describe_labels(many, [str(i) for i in range(12)]) == "12 classes (3 to 14 labels each)"
