"""Splits of an image data set: encoded images by position, and labels with the same meaning in every split."""

from collections.abc import Collection, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from ssl_zoo.data.image.decode import Encoded
from ssl_zoo.data.labels import as_label, held_out_share, sort_names
from ssl_zoo.data.layout import abbreviate
from ssl_zoo.data.splits import TEST_NAMES, find_split

IMAGE_ENDINGS = {
    ".jpg",
    ".jpeg",
    ".jpe",
    ".jfif",
    ".jif",
    ".png",
    ".apng",
    ".bmp",
    ".dib",
    ".gif",
    ".tif",
    ".tiff",
    ".webp",
}
IMAGE_ENDINGS |= {".avif", ".jp2", ".j2k", ".jpx", ".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".qoi"}
"""Endings of image files, in lower case."""

HELD_OUT_SEED = 0
"""Seed for the choice of the images that are held out, whatever the seed of the run, so that runs can be compared."""


class Images(Protocol):
    """N encoded images by position."""

    def __len__(self) -> int:
        """N."""

    def __getitem__(self, position: int) -> Encoded:
        """One encoded image."""

    def name(self, position: int) -> str:
        """The name of an image in error messages: its path, or its table and row."""


class ImageSplit(NamedTuple):
    """One split of a data set.

    Attributes:
        images: N encoded images.
        labels: (N,) int64, positions in `classes`, -1 where unknown.
        classes: their names.
    """

    images: Images
    labels: np.ndarray
    classes: list[str]


class ImageSource(Protocol):
    """A data set in named splits, read at first use."""

    def fingerprint(self) -> str:
        """A hash that changes with the content."""

    def splits(self) -> list[str]:
        """Names of the splits."""

    def notes(self, used: Collection[str]) -> list[str]:
        """Messages about data that is not read when the splits `used` are."""

    def read(self, split: str) -> ImageSplit:
        """The images and labels of a split.

        Raises:
            ValueError: for data that is missing or ambiguous.
        """


def choose_splits(available: Sequence[str], train: Sequence[str], test: str | None) -> tuple[list[str], str | None]:
    """The available splits for names that a user gave; see `read_splits`.

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
    """Numbers the classes of a column.

    Args:
        values: N cells.
        where: with which error messages begin.

    Returns:
        Labels (N,) int64, positions among the classes, -1 where unknown; and the names of the classes.

    Raises:
        ValueError: as `as_label`.
    """
    labels = [as_label(value, where) for value in values]
    classes = sort_names(label for label in labels if label is not None)
    place: dict[str | None, int] = {name: i for i, name in enumerate(classes)}
    return np.array([place.get(label, -1) for label in labels], dtype=np.int64), classes


def read_splits(
    source: ImageSource, train: Sequence[str], test: str | None, heldout: float | None = None
) -> dict[str, ImageSplit]:
    """Reads the training split and the test split, with labels in terms of one list of classes.

    Args:
        source: the data set.
        train: names of one or more splits, which are concatenated.
        test: the name of a split; None for no test split; "auto" for one with a usual name, if there is any.
        heldout: the fraction of each class to hold out as the test split where the source has none; None: see
            `held_out_share` for `test` "auto" and labelled images, else 0.

    Returns:
        "train" and, if there is one, "test".

    Raises:
        ValueError: for a split that does not exist, an empty one, or a class that only the test split has.
    """
    is_open = test == "auto"
    train, test = choose_splits(source.splits(), train, test)
    pieces = [source.read(name) for name in train]
    classes = list(dict.fromkeys(name for piece in pieces for name in piece.classes))
    labels = np.concatenate([_translate(piece, classes) for piece in pieces])
    images = pieces[0].images if len(pieces) == 1 else Concatenated([piece.images for piece in pieces])
    if not len(images):
        raise ValueError(f"data.splits.train={list(train)}: holds no images")
    splits = {"train": ImageSplit(images, labels, classes)}
    if test is None:
        return hold_out(splits["train"], heldout if heldout is not None or is_open else 0.0)
    found = source.read(test)
    known = [classes[label] for label in np.unique(labels[labels >= 0])]
    unknown = [name for name in (found.classes[i] for i in np.unique(found.labels) if i >= 0) if name not in known]
    if unknown and known:
        raise ValueError(
            f"data.splits.test={test}: has classes that the training split lacks: {abbreviate(unknown)}. "
            "Remove them there, or add training examples of them"
        )
    return splits | {"test": ImageSplit(found.images, _translate(found, classes), classes)}


def hold_out(split: ImageSplit, share: float | None) -> dict[str, ImageSplit]:
    """Divides the labelled images of a split into "train" and "test", the same ones for every seed of a run.

    Unlabelled images are in "train", as is the only image of a class. Without several classes there is no "test".

    Args:
        split: all images.
        share: see `held_out_share`.

    Raises:
        ValueError: when no class has two images, so that none can be held out.
    """
    labelled = split.labels[split.labels >= 0]
    classes = np.unique(labelled)
    share = held_out_share(len(labelled), share)
    if share == 0 or len(classes) < 2:
        return {"train": split}
    random, chosen = np.random.default_rng(HELD_OUT_SEED), []
    for label in classes:
        members = random.permutation(np.flatnonzero(split.labels == label))
        chosen.append(members[: min(max(round(share * len(members)), 1), len(members) - 1)])
    test = np.sort(np.concatenate(chosen))
    if not len(test):
        raise ValueError(
            f"data.heldout={share:g}: each of the {len(labelled)} labelled images has a class of its own, so none can "
            "be held out for evaluation. Give data.heldout=0 to go without, or other labels"
        )
    train = np.delete(np.arange(len(split.labels)), test)
    parts = {"train": train, "test": test}
    return {
        name: ImageSplit(Subset(split.images, rows), split.labels[rows], split.classes) for name, rows in parts.items()
    }


def _translate(split: ImageSplit, classes: list[str]) -> np.ndarray:
    """The labels as positions in `classes`; -1 for a class that is not among them."""
    place = {name: i for i, name in enumerate(classes)}
    table = np.array([place.get(name, -1) for name in split.classes] + [-1])  # label -1 finds the last entry
    return table[split.labels].astype(np.int64)


class Subset:
    """Some of the images of a split.

    Args:
        images: N images.
        positions: (n,) int64, those of them to keep.
    """

    def __init__(self, images: Images, positions: np.ndarray):
        self.images = images
        self.positions = positions

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, position: int) -> Encoded:
        return self.images[int(self.positions[position])]

    def name(self, position: int) -> str:
        """The name of an image in error messages."""
        return self.images.name(int(self.positions[position]))


class Concatenated:
    """The images of several splits, one after another."""

    def __init__(self, pieces: Sequence[Images]):
        self.pieces = list(pieces)
        self.ends = np.cumsum([len(piece) for piece in pieces])

    def __len__(self) -> int:
        return int(self.ends[-1])

    def _find(self, position: int) -> tuple[Images, int]:
        k = int(np.searchsorted(self.ends, position, side="right"))
        return self.pieces[k], int(position - (self.ends[k - 1] if k else 0))

    def __getitem__(self, position: int) -> Encoded:
        piece, position = self._find(position)
        return piece[position]

    def name(self, position: int) -> str:
        """The name of an image in error messages."""
        piece, position = self._find(position)
        return piece.name(position)
