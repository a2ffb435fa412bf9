"""Parts join in order, and a label means the same class in each of them."""

import numpy as np
import pytest

from ssl_zoo.data.image.splits import Concatenated, ImageSplit, abbreviate, read_splits


class Named:
    """Images that are their own names."""

    def __init__(self, names: list[str]):
        self.names = names

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, position: int) -> bytes:
        return self.names[position].encode()

    def name(self, position: int) -> str:
        return self.names[position]


class Shelf:
    """A source of parts at hand."""

    def __init__(self, **parts: tuple[list[int], list[str]]):
        self.parts = parts

    def fingerprint(self) -> str:
        return "shelf"

    def splits(self) -> list[str]:
        return list(self.parts)

    def read(self, split: str) -> ImageSplit:
        labels, classes = self.parts[split]
        return ImageSplit(Named([f"{split}{i}" for i in range(len(labels))]), np.array(labels, dtype=np.int64), classes)


def test_joined_parts_are_one_after_another() -> None:
    joined = Concatenated([Named(["a", "b"]), Named([]), Named(["c"])])
    assert len(joined) == 3
    assert [joined.name(i) for i in range(3)] == ["a", "b", "c"]
    assert joined[2] == b"c"


def test_labels_mean_the_training_part_s_classes() -> None:
    source = Shelf(train=([0, 1, 2], ["bird", "cat", "dog"]), test=([0, 1, -1], ["cat", "dog"]))
    parts = read_splits(source, ["train"], "test")
    assert parts["train"].classes == parts["test"].classes == ["bird", "cat", "dog"]
    assert parts["test"].labels.tolist() == [1, 2, -1]


def test_a_class_of_the_test_part_alone_is_named() -> None:
    source = Shelf(train=([0, 1], ["cat", "dog"]), val=([0, 1, 2], ["aardvark", "cat", "dog"]))
    with pytest.raises(
        ValueError, match=r"data.splits.test=val: has classes that the training split lacks: aardvark\."
    ):
        read_splits(source, ["train"], "val")
    declared = Shelf(train=([0, 0], ["cat", "dog"]), test=([0, 1], ["cat", "dog"]))  # declared, but without examples
    with pytest.raises(ValueError, match="lacks: dog"):
        read_splits(declared, ["train"], "test")


def test_training_on_labelled_and_unlabelled_splits() -> None:
    source = Shelf(train=([1, 0], ["cat", "dog"]), unlabeled=([-1, -1, -1], []), test=([1], ["cat", "dog"]))
    parts = read_splits(source, ["train", "unlabeled"], "test")
    assert parts["train"].labels.tolist() == [1, 0, -1, -1, -1]
    assert [parts["train"].images.name(i) for i in (0, 2)] == ["train0", "unlabeled0"]


def test_the_test_part_can_be_absent_or_found() -> None:
    source = Shelf(train=([0], ["cat"]), val=([0], ["cat"]), validation=([0], ["cat"]))
    assert list(read_splits(source, ["train"], None)) == ["train"]
    assert read_splits(source, ["train"], "auto")["test"].images.name(0) == "validation0"
    assert list(read_splits(Shelf(train=([0], ["cat"])), ["train"], "auto")) == ["train"]


def test_wrong_splits_are_named() -> None:
    source = Shelf(train=([0], ["cat"]), val=([0], ["cat"]), empty=([], []))
    with pytest.raises(ValueError, match=r"data.splits.train=trian: no such split. There are: train, val"):
        read_splits(source, ["trian"], None)
    with pytest.raises(ValueError, match=r"data.splits.test=test: no such split"):
        read_splits(source, ["train"], "test")
    with pytest.raises(ValueError, match=r"data.splits.train=\['empty'\]: holds no images"):
        read_splits(source, ["empty"], None)


def test_a_message_lists_the_first_ten() -> None:
    assert abbreviate(range(3)) == "0, 1, 2"
    assert abbreviate(range(12)).endswith("9 and 2 more")


def test_a_fixed_share_of_each_class_is_held_out() -> None:
    source = Shelf(train=([0] * 40 + [1] * 20 + [-1] * 5 + [2], ["cat", "dog", "unicorn"]))
    parts = read_splits(source, ["train"], "auto")
    assert np.bincount(parts["test"].labels).tolist() == [8, 4]
    assert np.bincount(parts["train"].labels + 1).tolist() == [5, 32, 16, 1]
    names = [[part.images.name(i) for i in range(len(part.images))] for part in parts.values()]
    assert sorted(names[0] + names[1]) == sorted(f"train{i}" for i in range(66))
    assert parts["test"].images[0] == names[1][0].encode()
    again = read_splits(source, ["train"], "auto")["test"]
    assert [again.images.name(i) for i in range(12)] == names[1]


def test_nothing_is_held_out_where_it_is_not_wanted() -> None:
    labelled, unlabelled = Shelf(train=([0, 1] * 10, ["a", "b"])), Shelf(train=([-1] * 20, []))
    assert list(read_splits(labelled, ["train"], "auto", heldout=0)) == ["train"]
    assert list(read_splits(labelled, ["train"], None)) == ["train"]
    assert list(read_splits(unlabelled, ["train"], "auto")) == ["train"]
    assert len(read_splits(labelled, ["train"], None, heldout=0.5)["test"].images) == 10
    both = Shelf(train=([0, 1] * 10, ["a", "b"]), test=([0], ["a", "b"]))
    assert len(read_splits(both, ["train"], "auto", heldout=0.5)["test"].images) == 1


def test_classes_of_one_image_each_cannot_be_held_out() -> None:
    with pytest.raises(ValueError, match=r"data\.heldout=0\.2: each of the 3 labelled images has a class of its own"):
        read_splits(Shelf(train=([0, 1, 2], ["a", "b", "c"])), ["train"], "auto")
