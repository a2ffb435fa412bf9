"""Images named in a CSV, TSV or JSON table, one row per image: a path and perhaps a label."""

from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from ssl_zoo.data.image_parts import ENDINGS, Part, label_positions
from ssl_zoo.data.layout import ending, some
from ssl_zoo.data.sources import fingerprint
from ssl_zoo.data.tables import Row, read_table

PATHS = ("path", "file_name", "filename", "file", "image", "image_path", "img", "filepath")
LABELS = ("label", "class", "target", "category", "cls")
"""Names that columns of paths and of labels usually have; data.image_column and data.label_column name others."""
TRIED = 20
"""Rows that decide whether a column holds paths of images."""


def names_images(table: Path, image_column: str | None) -> bool:
    """Whether a table names image files: its first rows do so in some column, or in the one that is given."""
    rows = list(islice(read_table(table), TRIED))
    names = [image_column] if image_column else list(rows[0].cells) if rows else []
    return any(_holds_paths(table, rows, name) for name in names)


def _holds_paths(table: Path, rows: Sequence[Row], name: str) -> bool:
    """Whether one of the rows names a file that is there, and all that have a value name one with an image's ending."""
    values = [row.cells[name] for row in rows if row.cells.get(name)]
    if not values or not all(isinstance(value, str) and ending(Path(value)) in ENDINGS for value in values):
        return False
    return any(_beside(table, value).is_file() for value in values)


def _beside(table: Path, value: str) -> Path:
    """The file that a table means: a path is relative to the table's folder. Backslashes are those of Windows."""
    found = table.parent / value
    return found if found.exists() or "\\" not in value else table.parent / value.replace("\\", "/")


class Paths:
    """The files that a column names."""

    def __init__(self, paths: Sequence[str], names: Sequence[str]):
        # One buffer instead of a million objects, whose reference counts would make every worker copy the list.
        self.paths, self.names = np.array(paths, dtype=np.str_), np.array(names, dtype=np.str_)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, position: int) -> Path:
        return Path(str(self.paths[position]))

    def name(self, position: int) -> str:
        return f"{self.paths[position]} ({self.names[position]})"


class Listed:
    """Tables of paths, relative to the folder of their table, and labels. splits: the tables of each.

    A file that is not there is an image that cannot be read, like a damaged one.

    image_column, label_column: None where the table tells. other_columns: those that hold something else.
    """

    def __init__(
        self,
        splits: Mapping[str, Sequence[Path]],
        image_column: str | None,
        label_column: str | None,
        other_columns: Collection[str] = (),
    ):
        self.tables, self.image_column, self.label_column = splits, image_column, label_column
        self.other_columns = other_columns

    @cached_property
    def rows(self) -> dict[str, list[tuple[Path, Row]]]:
        """Each row of each split, and its table."""
        return {
            split: [(path, row) for path in paths for row in read_table(path)] for split, paths in self.tables.items()
        }

    def splits(self) -> list[str]:
        return sorted(self.tables)

    def notes(self, used: Collection[str]) -> list[str]:
        tables = [path.name for split in used for path in self.tables[split]]
        unused = [split for split in self.tables if split not in used]
        return [f"images and labels are those of {some(tables)}"] + [f"splits not used: {some(unused)}"] * bool(unused)

    def fingerprint(self) -> str:
        files = [path for paths in self.tables.values() for path in paths]
        images = {path for split in self.tables for path in self._paths(split)}
        return fingerprint([*files, *sorted(images)])

    def _paths(self, split: str) -> list[Path]:
        column = self._image_column(split)
        return [_beside(table, str(row.cells.get(column) or "")) for table, row in self.rows[split]]

    def part(self, split: str) -> Part:
        """Raises: ValueError when a column is missing or cannot be told, or when no image is where the paths say."""
        paths, rows = self._paths(split), self.rows[split]
        if not any(path.is_file() for path in paths):
            first = f", such as {paths[0]}" if paths else ""
            raise ValueError(
                f"data.image_column={self._image_column(split)}: none of the {len(paths)} images of "
                f"{some(self.tables[split])} is there{first}. Paths are relative to the folder of their table; "
                "data.image_column names the column that holds them"
            )
        images = Paths([str(path) for path in paths], [row.where for _, row in rows])
        column = self._label_column(split)
        if column is None:
            return Part(images, np.full(len(paths), -1), [])
        where = f"data.label_column={column}: {some(self.tables[split])}"
        labels, classes = label_positions([row.cells.get(column) for _, row in rows], where)
        return Part(images, labels, classes)

    def captions(self, split: str, column: str) -> list[Any]:
        """The cells of a column. Raises: ValueError when there is none of this name."""
        if column not in self._columns(split):
            raise ValueError(f"data.caption_column={column}: no such column. There are: {some(self._columns(split))}")
        return [row.cells.get(column) for _, row in self.rows[split]]

    def _columns(self, split: str) -> list[str]:
        return list(dict.fromkeys(name for _, row in self.rows[split][:TRIED] for name in row.cells))

    def _image_column(self, split: str) -> str:
        columns, tables = self._columns(split), self.tables[split]
        if self.image_column is not None:
            return self._given("image", self.image_column, columns)
        rows = [row for _, row in self.rows[split][:TRIED]]
        found = [name for name in columns if _holds_paths(tables[0], rows, name)]
        found = found or [name for name in columns if name.lower() in PATHS]
        if len(found) != 1:
            raise ValueError(
                f"data.image_column is not set, and {some(tables)} does not tell which column holds the paths of "
                f"images. Give one of {some(columns)}"
            )
        return found[0]

    def _label_column(self, split: str) -> str | None:
        """The column that the configuration names, else one with a usual name; None where there is no further one.

        Raises: ValueError where neither holds. A split, such as the test set of a competition, may lack the column.
        """
        columns = self._columns(split)
        if self.label_column is not None:
            if self.label_column not in columns and any(
                self.label_column in self._columns(name) for name in self.tables
            ):
                return None
            return self._given("label", self.label_column, columns)
        others = [name for name in columns if name not in (self._image_column(split), *self.other_columns)]
        found = [name for name in others if name.lower() in LABELS]
        if len(found) > 1 or (not found and others):
            raise ValueError(
                f"data.label_column is not set, and {some(self.tables[split])} does not tell which column holds the "
                f"labels. Give one of {some(others)}; for images without labels, a table of their paths alone"
            )
        return found[0] if found else None

    def _given(self, kind: str, name: str, columns: Collection[str]) -> str:
        if name not in columns:
            raise ValueError(f"data.{kind}_column={name}: no such column. There are: {some(columns)}")
        return name
