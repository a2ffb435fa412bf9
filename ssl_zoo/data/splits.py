"""Which names of folders and files stand for splits."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

SPLITS = {
    "train": ("train", "training"),
    "test": ("test", "testing"),
    "validation": ("validation", "val", "valid", "dev"),
    "unlabelled": ("unlabelled", "unlabeled", "unsupervised", "unsup"),
}
"""The use of each split, and the words that folders and files of it are called by, in any case."""
TEST_NAMES = ("test", "validation")
"""Splits to evaluate on where none is named, in order of preference."""
WORDS = {word: use for use, words in SPLITS.items() for word in words}
SPLIT_NAME = re.compile(rf"({'|'.join(sorted(WORDS, key=len, reverse=True))})([-_ .]?(set|split|data|images|\d.*))?")


def split_name(name: str) -> str | None:
    """The split that the name of a folder, or the stem of a file, stands for; None for any other name.

    "train" for train, Train, TRAINING, train_images and train-00000-of-00002; words for the other splits are kept in
    lower case ("val" for Val), but for "testing", which is "test".
    """
    found = SPLIT_NAME.fullmatch(name.lower())
    if not found:
        return None
    use = WORDS[found[1]]
    return use if use in ("train", "test") else found[1]


def file_split(path: Path) -> str | None:
    """The split of a file, by its stem or the first or last word of it, as in train-a.csv and sst_train.csv."""
    words = [word for word in re.split(r"[-_. ]+", stem(path)) if not word.isdecimal()]
    return split_name(stem(path)) or next(filter(None, map(split_name, words[:1] + words[-1:])), None)


def find_split(name: str, available: Sequence[str]) -> str | None:
    """The available split with this name, else with another spelling of it (Val, dev or valid for val)."""
    if name in available:
        return name
    use = WORDS.get(name.lower())
    same = [each for each in available if each.lower() == name.lower() or (use and WORDS.get(each.lower()) == use)]
    return min(same, key=lambda each: list(WORDS).index(each.lower())) if use and same else next(iter(same), None)


def like_splits(names: Iterable[str]) -> list[str]:
    """Names that differ only in the word for a split, as seg_train and seg_test do; [] unless train is among them."""
    found: dict[tuple[str, str], list[str]] = {}
    for name in sorted(names):
        for word in re.split(r"[-_. ]+", name):
            if split_name(word):
                before, _, after = name.partition(word)
                found.setdefault((before, after), []).append(name)
    alike = [group for (before, after), group in found.items() if len(group) > 1 and before + after]
    return next((group for group in alike if any("train" in name.lower() for name in group)), [])


def stem(path: Path) -> str:
    """The name of a file up to the first dot."""
    return path.name.partition(".")[0]
