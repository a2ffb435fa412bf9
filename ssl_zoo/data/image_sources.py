"""Where images come from: class folders, flat folders, tables (hub, parquet), scikit-learn's digits."""

import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from ssl_zoo.data.decode import Encoded
from ssl_zoo.data.image_parts import TEST_NAMES, Part, Source, some
from ssl_zoo.data.sources import fingerprint, is_hidden, load_tables, locate, visible_files

if TYPE_CHECKING:
    from datasets import Dataset

DIGITS = "sklearn:digits"
ENDINGS = {".jpg", ".jpeg", ".jpe", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".avif", ".jp2"}
ENDINGS |= {".ppm", ".pgm", ".pbm", ".pnm"}
TABLE_ENDINGS = {".parquet", ".arrow", ".tar"}
TABLE_NAMES = {"metadata.csv", "metadata.jsonl"}


def open_source(path: str, root: str | None, image_column: str | None, label_column: str | None) -> Source:
    """What `path` stands for: `sklearn:digits`, a folder of images, a hub id or a table in the Hub's layout.

    Raises:
        ValueError: when there is no such thing.
    """
    if path == DIGITS:
        return Digits()
    place = locate(path, root)
    if isinstance(place, str) or place.is_file() or _holds_tables(place):
        return Tables(place, image_column, label_column)
    return Folder(place)


def _holds_tables(folder: Path) -> bool:
    near = [*folder.glob("*"), *folder.glob("*/*")]
    return any((path.suffix in TABLE_ENDINGS or path.name in TABLE_NAMES) and not is_hidden(path.name) for path in near)


class Files:
    """Image files below `folder`."""

    def __init__(self, folder: Path, paths: Sequence[Path]):
        self.folder = folder
        # One buffer instead of a million objects, whose reference counts would make every worker copy the list.
        self.paths = np.array([os.fsencode(path.relative_to(folder)) for path in paths], dtype=np.bytes_)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, position: int) -> Path:
        return self.folder / os.fsdecode(self.paths[position])

    def name(self, position: int) -> str:
        return str(self[position])


class Folder:
    """Images in a folder. With a sub-folder `train` each sub-folder is a split, otherwise all is the split "train".

    The sub-folders of a split are its classes; where they hold no images, those beside them are unlabelled. Hidden
    files and files with other endings than an image's are left out.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        names = {path.name for path in _subfolders(folder)}
        # "train" may also be a class, beside bus and car: then it holds images, not classes
        self.divided = "train" in names and bool(
            names <= {"train", *TEST_NAMES, "unlabeled", "unlabelled"} or _subfolders(folder / "train")
        )

    def fingerprint(self) -> str:
        return fingerprint(_images(self.folder), self.folder)

    def splits(self) -> list[str]:
        return [path.name for path in _subfolders(self.folder)] if self.divided else ["train"]

    def part(self, split: str) -> Part:
        """Raises: ValueError for a folder without images, a class without images, images beside class folders."""
        folder = self.folder / split if self.divided else self.folder
        classes, paths = _subfolders(folder), _images(folder)
        if not paths:
            raise ValueError(f"data.path={self.folder}: no images in {folder} (endings {', '.join(sorted(ENDINGS))})")
        if all(path.parent == folder for path in paths):
            return Part(Files(folder, paths), np.full(len(paths), -1), [])
        place = {path.name: i for i, path in enumerate(classes)}
        above = [path.relative_to(folder).parts[0] for path in paths]
        if loose := [name for name in above if name not in place]:
            raise ValueError(
                f"data.path={self.folder}: {folder} holds both folders and images ({some(loose)}). "
                "Keep either one folder a class, or images only"
            )
        labels = np.array([place[name] for name in above])
        if empty := [name for name in place if place[name] not in labels]:
            raise ValueError(
                f"data.path={self.folder}: no images in class {some(empty)} of {folder}; remove its folder"
            )
        return Part(Files(folder, paths), labels, list(place))


def _subfolders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not is_hidden(path.name))


def _images(folder: Path) -> list[Path]:
    return [path for path in visible_files(folder) if path.suffix.lower() in ENDINGS]


class Rows:
    """The image column of a table."""

    def __init__(self, table: "Dataset", column: str, name: str):
        self.table, self.column, self.called = table, column, name

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, position: int) -> Encoded:
        value = self.table.data.column(self.column)[int(position)].as_py()
        if isinstance(value, dict):  # the Hub's image type: bytes in the table, or the path of a file beside it
            value = value["bytes"] if value["bytes"] is not None else Path(value["path"] or "")
        return value if value is not None else b""

    def name(self, position: int) -> str:
        return f"{self.called}, row {position}"


class Tables:
    """A hub data set, a folder in the Hub's layout or a parquet file, read through the `datasets` library."""

    def __init__(self, place: Path | str, image_column: str | None, label_column: str | None):
        self.place, self.image_column, self.label_column = place, image_column, label_column

    @cached_property
    def tables(self) -> dict[str, "Dataset"]:
        return dict(load_tables(self.place))

    def fingerprint(self) -> str:
        if isinstance(self.place, Path):  # without opening it: importing `datasets` takes seconds
            return fingerprint(visible_files(self.place) if self.place.is_dir() else [self.place], self.place.parent)
        files = [Path(file["filename"]) for table in self.tables.values() for file in table.cache_files]
        return fingerprint(files)

    def splits(self) -> list[str]:
        return list(self.tables)

    def part(self, split: str) -> Part:
        """Raises: ValueError when a column is missing, cannot be told, or holds no images or classes."""
        table = self.tables[split]
        image_column = self._column(table, "image")
        assert image_column is not None
        images = Rows(table, image_column, f"{self.place}, {split}")
        label_column = self._column(table, "label")
        if label_column is None:
            return Part(images, np.full(len(table), -1), [])
        labels, classes = self._labels(table, label_column)
        return Part(images, labels, classes)

    def _column(self, table: "Dataset", kind: str) -> str | None:
        """The column that the configuration names, else the only one of its type; None where there is no label."""
        given = self.image_column if kind == "image" else self.label_column
        if given is not None:
            if given not in table.column_names:
                raise ValueError(f"data.{kind}_column={given}: no such column. There are: {some(table.column_names)}")
            return given
        wanted = "Image" if kind == "image" else "ClassLabel"
        found = [name for name, feature in table.features.items() if type(feature).__name__ == wanted]
        found = found or [name for name in table.column_names if name == kind]
        if len(found) != 1 and (kind == "image" or found):
            raise ValueError(
                f"data.{kind}_column is not set, and {self.place} does not tell which it is. "
                f"Give one of {some(table.column_names)}"
            )
        return found[0] if found else None

    def _labels(self, table: "Dataset", column: str) -> tuple[np.ndarray, list[str]]:
        """No value, or a negative one, means unknown."""
        values = table.data.column(column).to_pylist()
        known = {value for value in values if value is not None and not (isinstance(value, int) and value < 0)}
        classes = getattr(table.features[column], "names", None)
        if classes is not None:
            if too_large := [value for value in known if value >= len(classes)]:
                raise ValueError(f"data.label_column={column}: {too_large[0]} is none of its {len(classes)} classes")
            return np.array([value if value in known else -1 for value in values]), list(classes)
        if wrong := [value for value in known if not isinstance(value, (int, str))]:
            raise ValueError(
                f"data.label_column={column}: holds {wrong[0]!r}, which is no class (an integer or a name)"
            )
        place = {value: i for i, value in enumerate(sorted(known))}
        return np.array([place.get(value, -1) for value in values], dtype=np.int64), [str(value) for value in place]


class Pixels:
    """Grey images, (N, H, W) uint8."""

    def __init__(self, pixels: np.ndarray, name: str):
        self.pixels, self.called = pixels, name

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, position: int) -> Image.Image:
        return Image.fromarray(self.pixels[position])

    def name(self, position: int) -> str:
        return f"{self.called}, image {position}"


class Digits:
    """scikit-learn's 1,797 handwritten digits of 8 x 8 pixels, their values 0..16 scaled to 0..255.

    The 400 test images are a fixed, stratified choice that no random generator decides: with the images sorted by
    class, in the data set's order within a class, they are number floor(i * 1797 / 400), i = 0..399.
    """

    num_test = 400

    def fingerprint(self) -> str:
        return DIGITS

    def splits(self) -> list[str]:
        return ["train", "test"]

    def part(self, split: str) -> Part:
        from sklearn.datasets import load_digits

        digits = load_digits()
        chosen = np.zeros(len(digits.target), dtype=bool)
        by_class = np.argsort(digits.target, kind="stable")
        chosen[by_class[np.arange(self.num_test) * len(by_class) // self.num_test]] = True
        mine = chosen if split == "test" else ~chosen
        pixels = np.round(digits.images[mine] * (255 / 16)).astype(np.uint8)
        return Part(Pixels(pixels, DIGITS), digits.target[mine].astype(np.int64), [str(n) for n in range(10)])
