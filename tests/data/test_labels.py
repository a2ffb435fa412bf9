"""One rule for what is a label, its order, and the line that counts labels."""

import math

import numpy as np
import pytest

from ssl_zoo.data.labels import as_label, describe_labels, held_out_share, limit_labels, sort_names


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


LABELS = np.array([0] * 50 + [1] * 20 + [-1] * 10 + [2])


def counts(labels: np.ndarray) -> list[int]:
    return np.bincount(labels[labels >= 0], minlength=3).tolist()


def test_labels_are_kept_by_class() -> None:
    assert limit_labels(LABELS, None, None, 0) is LABELS
    few = limit_labels(LABELS, 5, None, 0)
    assert counts(few) == [5, 5, 1]
    assert set(few[few != LABELS]) == {-1}
    assert counts(limit_labels(LABELS, None, 0.1, 0)) == [5, 2, 1]
    assert counts(limit_labels(LABELS, None, 1.0, 0)) == [50, 20, 1]


def test_which_labels_are_kept_depends_on_the_seed_alone() -> None:
    assert (limit_labels(LABELS, 5, None, 3) == limit_labels(LABELS, 5, None, 3)).all()
    assert (limit_labels(LABELS, 5, None, 3) != limit_labels(LABELS, 5, None, 4)).any()


@pytest.mark.parametrize(("total", "share"), [(100, 0.2), (5_000, 0.2), (10_000, 0.1), (10**6, 0.01)])
def test_the_share_held_out(total: int, share: float) -> None:
    assert held_out_share(total, None) == pytest.approx(share)
    assert held_out_share(total, 0.5) == 0.5
