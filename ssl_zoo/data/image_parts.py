"""Parts of a data set of images: encoded images by position, and labels that mean the same class in every part."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from ssl_zoo.data.decode import Encoded

TEST_NAMES = ["test", "validation", "val", "valid", "dev"]
"""What `splits.test: auto` looks for, in this order."""


class Images(Protocol):
    """N encoded images by position."""

    def __len__(self) -> int: ...

    def __getitem__(self, position: int) -> Encoded: ...

    def name(self, position: int) -> str:
        """What an error message calls the image: its path, or its table and row."""


class Part(NamedTuple):
    """One part of a data set. labels: (N,) int64 positions in `classes`, -1 where unknown."""

    images: Images
    labels: np.ndarray
    classes: list[str]


class Source(Protocol):
    """A data set in named splits, read when first asked for."""

    def fingerprint(self) -> str:
        """Changes with the content."""

    def splits(self) -> list[str]: ...

    def part(self, split: str) -> Part: ...


def read_parts(source: Source, train: Sequence[str], test: str | None) -> dict[str, Part]:
    """ "train" (of one or more splits) and, if there is one, "test"; the labels are positions in one list of classes.

    test: the name of a split; None for no test part; "auto" for one with a usual name, if there is any.

    Raises:
        ValueError: for a split that does not exist, an empty one, or a class that only the test part has.
    """
    available = source.splits()
    if test == "auto":
        test = next((name for name in TEST_NAMES if name in available), None)
    for key, names in (("train", train), ("test", [test] if test else [])):
        for name in names:
            if name not in available:
                raise ValueError(f"data.splits.{key}={name}: no such split. There are: {', '.join(available)}")
    pieces = [source.part(name) for name in train]
    classes = list(dict.fromkeys(name for piece in pieces for name in piece.classes))
    labels = np.concatenate([_translate(piece, classes) for piece in pieces])
    images = pieces[0].images if len(pieces) == 1 else Joined([piece.images for piece in pieces])
    if not len(images):
        raise ValueError(f"data.splits.train={list(train)}: holds no images")
    parts = {"train": Part(images, labels, classes)}
    if test is None:
        return parts
    part = source.part(test)
    known = [classes[label] for label in np.unique(labels[labels >= 0])]
    unknown = [name for name in (part.classes[i] for i in np.unique(part.labels) if i >= 0) if name not in known]
    if unknown and known:
        raise ValueError(
            f"data.splits.test={test}: has classes that the training part lacks: {some(unknown)}. "
            "Remove them there, or add training examples of them"
        )
    return parts | {"test": Part(part.images, _translate(part, classes), classes)}


def _translate(part: Part, classes: list[str]) -> np.ndarray:
    """Its labels as positions in `classes`; -1 for a class that is not there."""
    place = {name: i for i, name in enumerate(classes)}
    table = np.array([place.get(name, -1) for name in part.classes] + [-1])  # label -1 finds the last entry
    return table[part.labels].astype(np.int64)


def some(names: Iterable[object]) -> str:
    """The first of them, for a message."""
    listed = [str(name) for name in names]
    return ", ".join(listed[:10]) + (f" and {len(listed) - 10} more" if len(listed) > 10 else "")


class Joined:
    """Several parts, one after another."""

    def __init__(self, parts: Sequence[Images]):
        self.parts = list(parts)
        self.ends = np.cumsum([len(part) for part in parts])

    def __len__(self) -> int:
        return int(self.ends[-1])

    def _find(self, position: int) -> tuple[Images, int]:
        k = int(np.searchsorted(self.ends, position, side="right"))
        return self.parts[k], int(position - (self.ends[k - 1] if k else 0))

    def __getitem__(self, position: int) -> Encoded:
        part, position = self._find(position)
        return part[position]

    def name(self, position: int) -> str:
        part, position = self._find(position)
        return part.name(position)
