"""Names of splits in any spelling, and what is no such name."""

from pathlib import Path

import pytest

from ssl_zoo.data.splits import file_split, find_split, like_splits, split_name


@pytest.mark.parametrize(
    ("name", "split"),
    [
        *[(name, "train") for name in ("Train", "TRAINING", "train_images", "train2017", "train-00000-of-00002")],
        *[(name, "test") for name in ("Test", "testing", "test-set")],
        *[(name, name.lower()) for name in ("Val", "Validation", "DEV", "valid", "unlabeled")],
        *[(name, None) for name in ("trainer", "train_station", "contest", "devil", "cat")],
    ],
)
def test_names_of_splits(name: str, split: str | None) -> None:
    assert split_name(name) == split


def test_names_of_files_and_wishes() -> None:
    names = ["Train.csv", "sst_train.tsv", "test-00000-of-00001.parquet", "dev.jsonl.gz", "contest.csv", "a.csv"]
    assert [file_split(Path(name)) for name in names] == ["train", "train", "test", "dev", None, None]
    assert find_split("validation", ["train", "val"]) == "val"
    assert find_split("Test", ["train", "test"]) == "test"
    assert find_split("validation", ["dev", "val"]) == "val"
    assert find_split("extra", ["train", "Extra"]) == "Extra"
    assert find_split("test", ["train", "val"]) is None


@pytest.mark.parametrize(
    ("names", "alike"),
    [
        (["seg_train", "seg_test", "seg_pred"], ["seg_test", "seg_train"]),
        (["Train-A", "Val-A", "Train-B"], ["Train-A", "Val-A"]),
        (["bullet_train", "blood_test", "cat"], []),
        (["pet_test", "pet_val"], []),
        (["train", "bus"], []),
    ],
)
def test_names_that_differ_in_the_split_alone(names: list[str], alike: list[str]) -> None:
    assert like_splits(names) == alike
