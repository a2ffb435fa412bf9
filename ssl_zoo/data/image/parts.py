"""Parts of a data set of images: encoded images by position, and labels that mean the same class in every part."""

from collections.abc import Collection, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from ssl_zoo.data.image.decode import Encoded
from ssl_zoo.data.labels import as_label, in_order
from ssl_zoo.data.layout import some
from ssl_zoo.data.splits import TEST_NAMES, find_split

ENDINGS = {".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".png", ".apng", ".bmp", ".dib", ".gif", ".tif", ".tiff", ".webp"}
ENDINGS |= {".avif", ".jp2", ".j2k", ".jpx", ".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".qoi"}
"""Of image files, in lower case."""


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


class ImageSource(Protocol):
    """A data set in named splits, read when first asked for."""

    def fingerprint(self) -> str:
        """Changes with the content."""

    def splits(self) -> list[str]: ...

    def notes(self, used: Collection[str]) -> list[str]:
        """What a user has to know of data that is not read, if the splits `used` are."""

    def part(self, split: str) -> Part: ...


def choose_splits(available: Sequence[str], train: Sequence[str], test: str | None) -> tuple[list[str], str | None]:
    """The splits of `available` that a user calls by these names; see `read_parts`.

    Raises:
        ValueError: for a split that does not exist.
    """
    if test == "auto":
        test = next((name for name in TEST_NAMES if find_split(name, available)), None)

    def find(key: str, name: str) -> str:
        if found := find_split(name, available):
            return found
        raise ValueError(f"data.splits.{key}={name}: no such split. There are: {', '.join(available)}")

    return [find("train", name) for name in train], find("test", test) if test else None


def label_positions(values: Sequence[object], where: str) -> tuple[np.ndarray, list[str]]:
    """Labels as positions in the classes that they name, (N,) int64, -1 where unknown; and these classes.

    Raises:
        ValueError: as `as_label`, beginning with `where`.
    """
    labels = [as_label(value, where) for value in values]
    classes = in_order(label for label in labels if label is not None)
    place: dict[str | None, int] = {name: i for i, name in enumerate(classes)}
    return np.array([place.get(label, -1) for label in labels], dtype=np.int64), classes


def read_parts(source: ImageSource, train: Sequence[str], test: str | None) -> dict[str, Part]:
    """ "train" (of one or more splits) and, if there is one, "test"; the labels are positions in one list of classes.

    test: the name of a split; None for no test part; "auto" for one with a usual name, if there is any.

    Raises:
        ValueError: for a split that does not exist, an empty one, or a class that only the test part has.
    """
    train, test = choose_splits(source.splits(), train, test)
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
