"""Sources of images: class folders, flat folders, tables (Hub, parquet, CSV), scikit-learn's digits."""

import os
from collections.abc import Collection, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from ssl_zoo.data.image.decode import Encoded
from ssl_zoo.data.image.lists import HUB_COLUMN, TRIED, Finder, Listed, names_images
from ssl_zoo.data.image.splits import IMAGE_ENDINGS, ImageSource, ImageSplit, label_positions
from ssl_zoo.data.layout import Layout, Walk, abbreviate, count_endings, ending
from ssl_zoo.data.locate import data_layout, fingerprint, has_card, load_tables, locate
from ssl_zoo.data.splits import WORDS
from ssl_zoo.data.tables import READABLE, read_table

if TYPE_CHECKING:
    from datasets import Dataset

DIGITS = "sklearn:digits"
HUB_ENDINGS = {".parquet", ".arrow", ".tar"}
HUB_NAMES = {"metadata.csv", "metadata.jsonl"}


def open_images(
    path: str,
    root: str | None,
    image_column: str | None,
    label_column: str | None,
    other_columns: Collection[str] = (),
) -> ImageSource:
    """The source that `path` stands for: `sklearn:digits`, a table, a Hub id, or a folder.

    A folder with a data card is in the Hub's layout. In any other folder the first of these is read: a metadata file
    with the column `file_name`, as on the Hub; class folders; parquet, arrow and tar files; a CSV or similar table that
    names images (except submission forms such as sample_submission.csv); the images as a flat folder.

    Args:
        path: as in the configuration.
        root: a folder that is searched first.
        image_column: of a table.
        label_column: of a table.
        other_columns: columns of a table that contain neither.

    Raises:
        ValueError: when nothing of the kind exists.
    """
    if path == DIGITS:
        return Digits()
    place = locate(path, root)
    if isinstance(place, str):
        return ImageTables(place, image_column, label_column)
    if place.is_file():
        if ending(place) in READABLE:
            return Listed({"train": [place]}, image_column, label_column, other_columns)
        return ImageTables(place, image_column, label_column)
    walk = Walk(place)
    near = [path for path in walk.files if len(path.relative_to(place).parts) <= 2]
    if has_card(place):
        return ImageTables(place, image_column, label_column)
    folder = Folder(walk)
    lists = [path for path in walk.files if path.name in HUB_NAMES and _has_file_names(path)]
    if not lists and not folder.layout.has_classes:
        if any(ending(path) in HUB_ENDINGS for path in near):
            return ImageTables(place, image_column, label_column)
        tables = [path for path in near if ending(path) in READABLE and "submission" not in path.name.lower()]
        lists = [path for path in tables if names_images(path, image_column)]
    if not lists:
        return folder
    layout = Layout(walk, {ending(path) for path in lists}, "tables")
    splits = {split: [path for path in files if path in lists] for split, files in layout.splits.items()}
    splits = {split: files for split, files in splits.items() if files}
    images = [path for files in folder.layout.splits.values() for path in files]
    return Listed(splits, image_column, label_column, other_columns, images)


def _has_file_names(table: Path) -> bool:
    return HUB_COLUMN in next((row.cells for row in read_table(table)), {})


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
        """The path."""
        return str(self[position])


class Folder:
    """Images in a folder, in splits and classes as in `Layout`. Files with other endings are left out."""

    def __init__(self, walk: Walk):
        self.folder = walk.root
        self.layout = Layout(walk, IMAGE_ENDINGS, "images")

    def fingerprint(self) -> str:
        """A hash of the files, the splits and the classes."""
        layout = self.layout
        files = [path for paths in layout.splits.values() for path in paths]
        classes = {split: layout.classes(split) for split in layout.splits}
        return f"{fingerprint(files, self.folder)} {layout.divided} {classes}"

    def splits(self) -> list[str]:
        """Names of the splits."""
        return sorted(self.layout.splits) or ["train"]

    def notes(self, used: Collection[str]) -> list[str]:
        """Messages about files that are not read."""
        return self.layout.notes(used)

    def read(self, split: str) -> ImageSplit:
        """The images and labels of a split.

        Raises:
            ValueError: for a folder without images, a class without images, or images beside class folders.
        """
        layout = self.layout
        paths = layout.splits.get(split, [])
        folder = layout.folder(split)
        if not paths:
            raise ValueError(
                f"data.path={self.folder}: no images in {folder}. It holds {count_endings(layout.others) or 'no files'}"
                f"; images end in {', '.join(sorted(IMAGE_ENDINGS))}. For text give data=text_folder"
            )
        classes = layout.classes(split)
        images = Files(self.folder, paths)
        if not classes:
            return ImageSplit(images, np.full(len(paths), -1), [])
        above = [layout.class_of(path, split) for path in paths]
        if loose := [path.name for path, name in zip(paths, above, strict=True) if name is None]:
            raise ValueError(
                f"data.path={self.folder}: {folder} holds both folders and images ({abbreviate(loose)}). "
                "Keep either one folder per class, or images only"
            )
        layout.check_filled(split, "images")
        names = [name for name in classes if WORDS.get(name.lower()) != "unlabelled"]
        place: dict[str | None, int] = {name: i for i, name in enumerate(names)}
        return ImageSplit(images, np.array([place.get(name, -1) for name in above]), names)


class ImageRows:
    """The images in a column of a table.

    Args:
        table: rows.
        column: its name.
        name: of the table, for error messages.
        place: the table's file, which paths in the column are relative to; None for a table from the Hub.
    """

    def __init__(self, table: "Dataset", column: str, name: str, place: Path | None):
        self.table = table
        self.column = column
        self.called = name
        first = [self._value(row) for row in range(min(TRIED, len(table)))]
        self.find = Finder(place, [value for value in first if isinstance(value, str)]) if place else Path

    def __len__(self) -> int:
        return len(self.table)

    def _value(self, position: int) -> Any:
        value = self.table.data.column(self.column)[int(position)].as_py()
        if isinstance(value, dict):  # the Hub's image type: bytes in the table, or the path of a file beside it
            value = value["bytes"] if value["bytes"] is not None else value["path"]
        return value

    def __getitem__(self, position: int) -> Encoded:
        value = self._value(position)
        if isinstance(value, str):
            return self.find(value)
        return value if value is not None else b""

    def name(self, position: int) -> str:
        """The table and the row."""
        return f"{self.called}, row {position}"


class ImageTables:
    """A Hub data set, a folder in the Hub's layout or a parquet file, read through the `datasets` library."""

    def __init__(self, place: Path | str, image_column: str | None, label_column: str | None):
        self.place = place
        self.image_column = image_column
        self.label_column = label_column

    @cached_property
    def tables(self) -> dict[str, "Dataset"]:
        """The table of each split."""
        return dict(load_tables(self.place))

    def fingerprint(self) -> str:
        """A hash of the files."""
        if isinstance(self.place, Path):  # without opening the tables: importing `datasets` takes seconds
            files = Walk(self.place).files if self.place.is_dir() else [self.place]
            return fingerprint(files, self.place.parent)
        files = [Path(file["filename"]) for table in self.tables.values() for file in table.cache_files]
        return fingerprint(files)

    def splits(self) -> list[str]:
        """Names of the splits."""
        return list(self.tables)

    def read(self, split: str) -> ImageSplit:
        """The images and labels of a split.

        Raises:
            ValueError: when a column is missing or ambiguous, or contains no images or classes.
        """
        table = self.tables[split]
        image_column = self._column(table, "image")
        assert image_column is not None
        images = ImageRows(table, image_column, f"{self.place}, {split}", self._file())
        label_column = self._column(table, "label")
        if label_column is None:
            return ImageSplit(images, np.full(len(table), -1), [])
        labels, classes = self._labels(table, label_column)
        return ImageSplit(images, labels, classes)

    def _file(self) -> Path | None:
        """The table's file, or any of several in one folder; for several folders a name in their common parent."""
        if not isinstance(self.place, Path):
            return None
        if self.place.is_file():
            return self.place
        files = [path for path in Walk(self.place).files if ending(path) in HUB_ENDINGS]
        return files[0] if len({path.parent for path in files}) == 1 else self.place / "tables"

    def notes(self, used: Collection[str]) -> list[str]:
        """Messages about files that are not read."""
        folder = isinstance(self.place, Path) and self.place.is_dir()
        layout = data_layout(Path(self.place)) if folder else None  # not from the tables: opening them takes seconds
        return layout.notes(used, named=IMAGE_ENDINGS) if layout else []

    def captions(self, split: str, column: str) -> list[Any]:
        """The cells of a column.

        Raises:
            ValueError: when there is no column of this name.
        """
        table = self.tables[split]
        if column not in table.column_names:
            raise ValueError(
                f"data.caption_column={column}: no such column. There are: {abbreviate(table.column_names)}"
            )
        return table.data.column(column).to_pylist()

    def _column(self, table: "Dataset", kind: str) -> str | None:
        """The column that the configuration names, else the only one of its type; None if no column has labels."""
        given = self.image_column if kind == "image" else self.label_column
        if given is not None:
            if given not in table.column_names:
                raise ValueError(
                    f"data.{kind}_column={given}: no such column. There are: {abbreviate(table.column_names)}"
                )
            return given
        wanted = "Image" if kind == "image" else "ClassLabel"
        found = [name for name, feature in table.features.items() if type(feature).__name__ == wanted]
        found = found or [name for name in table.column_names if name == kind or (kind, name) == ("label", "cls")]
        if len(found) != 1 and (kind == "image" or found):
            raise ValueError(
                f"data.{kind}_column is not set, and {self.place} does not tell which it is. "
                f"Give one of {abbreviate(table.column_names)}"
                + ("; for text give data=text_folder" if kind == "image" else "")
            )
        return found[0] if found else None

    def _labels(self, table: "Dataset", column: str) -> tuple[np.ndarray, list[str]]:
        """The labels, -1 for an empty cell or a negative number, and the classes."""
        values = table.data.column(column).to_pylist()
        where = f"data.label_column={column}:"
        classes = getattr(table.features[column], "names", None)
        if classes is None:
            return label_positions(values, where)
        if wrong := [value for value in values if value is not None and not value < len(classes)]:
            raise ValueError(f"{where} {wrong[0]} is none of its {len(classes)} classes")
        return np.array([-1 if value is None or value < 0 else value for value in values]), list(classes)


class Pixels:
    """Grey images from an array, (N, H, W) uint8."""

    def __init__(self, pixels: np.ndarray, name: str):
        self.pixels = pixels
        self.called = name

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, position: int) -> Image.Image:
        return Image.fromarray(self.pixels[position])

    def name(self, position: int) -> str:
        """The source and the position."""
        return f"{self.called}, image {position}"


class Digits:
    """scikit-learn's 1,797 handwritten digits of 8 x 8 pixels, their values 0..16 scaled to 0..255.

    The 400 test images are a fixed, stratified choice that no random generator decides: with the images sorted by
    class, in the data set's order within a class, they are number floor(i * 1797 / 400), i = 0..399.
    """

    num_test = 400

    def fingerprint(self) -> str:
        """The name of the source: its content never changes."""
        return DIGITS

    def splits(self) -> list[str]:
        """Names of the splits."""
        return ["train", "test"]

    def notes(self, used: Collection[str]) -> list[str]:
        """No messages."""
        return []

    def read(self, split: str) -> ImageSplit:
        """The images and labels of a split."""
        from sklearn.datasets import load_digits

        digits = load_digits()
        chosen = np.zeros(len(digits.target), dtype=bool)
        by_class = np.argsort(digits.target, kind="stable")
        chosen[by_class[np.arange(self.num_test) * len(by_class) // self.num_test]] = True
        members = chosen if split == "test" else ~chosen
        pixels = np.round(digits.images[members] * (255 / 16)).astype(np.uint8)
        labels = digits.target[members].astype(np.int64)
        return ImageSplit(Pixels(pixels, DIGITS), labels, [str(n) for n in range(10)])
