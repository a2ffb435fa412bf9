"""Images listed in a CSV, TSV or JSON table, one row per image: a path and perhaps a label."""

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from ssl_zoo.data.image.splits import IMAGE_ENDINGS, ImageSplit, label_positions
from ssl_zoo.data.layout import abbreviate, ending, subfolders
from ssl_zoo.data.locate import fingerprint
from ssl_zoo.data.splits import file_split, split_name
from ssl_zoo.data.tables import TableRow, read_table

PATHS = ("path", "file_name", "filename", "file", "image", "image_path", "img", "filepath")
"""Usual names of columns of paths; data.image_column names another."""
LABELS = ("label", "class", "target", "category", "cls")
"""Usual names of columns of labels; data.label_column names another."""
HUB_COLUMN = "file_name"
"""The column of paths in a metadata file as on the Hub; its other columns need not be labels."""
TRIED = 20
"""Number of rows that decide whether a column contains paths of images."""


def names_images(table: Path, image_column: str | None) -> bool:
    """Whether the first rows of a table name image files, in the given column or, if None, in any."""
    rows = list(islice(read_table(table), TRIED))
    names = [image_column] if image_column else list(rows[0].cells) if rows else []
    return bool(_path_columns({table: rows}, names))


def _path_columns(tables: Mapping[Path, Sequence[TableRow]], names: Iterable[str]) -> list[str]:
    """The columns that contain names of images: with image endings, or else, all different, without endings."""
    values = {name: {table: _filled(rows, name) for table, rows in tables.items()} for name in names}
    for without in (False, True):
        found = [name for name in values if _hold_names(values[name], without)]
        if found:
            return found
    return []


def _hold_names(values: Mapping[Path, Sequence[object]], without_ending: bool) -> bool:
    """Whether cells, by table, name images: some must exist; without an ending, as any number is, all must exist."""
    cells = [str(value) for its in values.values() for value in its if isinstance(value, str | int)]
    if len(cells) < max(1, sum(map(len, values.values()))) or _lack_endings(cells) != without_ending:
        return False
    if without_ending and len(set(cells)) < len(cells):
        return False
    found = [Finder(table, its)(value).is_file() for table, its in values.items() for value in map(str, its)]
    return all(found) if without_ending else any(found) and all(ending(Path(cell)) in IMAGE_ENDINGS for cell in cells)


def _filled(rows: Iterable[TableRow], name: str) -> list[object]:
    return [row.cells[name] for row in rows if row.cells.get(name) not in (None, "")]


def _lack_endings(values: Iterable[object]) -> bool:
    return not any(ending(Path(str(value))) in IMAGE_ENDINGS for value in values)


class Finder:
    """Finds the file that a cell of a table means; backslashes are separators, as on Windows.

    A path is relative to the table's folder; if none of `values`, some cells, exists there, to the folder above; else
    to the folder beside the table that has them: the one of the table's split (train.csv and train/), or the only one.
    If the values have no image endings, those of the files are ignored too.

    Raises:
        ValueError: where several folders beside the table have the files.
    """

    def __init__(self, table: Path, values: Sequence[object]):
        self.without_ending = _lack_endings(values)
        self._names: dict[Path, dict[str, list[str]]] = {}
        cells = [str(value) for value in values if isinstance(value, str | int)][:TRIED]

        def holds(folder: Path) -> bool:
            self.folder = folder
            return any(self(cell).is_file() for cell in cells)

        if holds(table.parent) or holds(table.parent.parent):
            return
        found = [folder for folder in subfolders(table.parent) if holds(folder)]
        named = [folder for folder in found if split_name(folder.name) and split_name(folder.name) == file_split(table)]
        if len(found) > 1 and len(named) != 1:
            raise ValueError(
                f"{table}: the images that it names lie in {abbreviate(found)}, so it is unclear which are meant. "
                "Write their paths relative to the table's folder"
            )
        self.folder = (named or found or [table.parent])[0]

    def __call__(self, value: str) -> Path:
        """The path of a cell's file, which need not exist."""
        path = self.folder / value
        if "\\" in value and not path.exists():
            path = self.folder / value.replace("\\", "/")
        if not self.without_ending or not value:
            return path
        if path.parent not in self._names:
            self._names[path.parent] = _names_by_stem(path.parent)
        names = self._names[path.parent].get(path.name, [])
        return path.with_name(names[0]) if len(names) == 1 else path


def _names_by_stem(folder: Path) -> dict[str, list[str]]:
    """The images in a folder, by name without ending."""
    found: dict[str, list[str]] = {}
    for name in os.listdir(folder) if folder.is_dir() else []:
        if Path(name).suffix.lower() in IMAGE_ENDINGS:
            found.setdefault(Path(name).stem, []).append(name)
    return found


class Paths:
    """Image files whose paths are in a column."""

    def __init__(self, paths: Sequence[str], names: Sequence[str]):
        # One buffer instead of a million objects, whose reference counts would make every worker copy the list.
        self.paths = np.array(paths, dtype=np.str_)
        self.names = np.array(names, dtype=np.str_)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, position: int) -> Path:
        return Path(str(self.paths[position]))

    def name(self, position: int) -> str:
        """The path, and the row that names it."""
        return f"{self.paths[position]} ({self.names[position]})"


def _tables(rows: Sequence[tuple[Path, TableRow]]) -> list[Path]:
    return list(dict.fromkeys(table for table, _ in rows))


def _columns(rows: Sequence[tuple[Path, TableRow]]) -> list[str]:
    return list(dict.fromkeys(name for _, row in rows[:TRIED] for name in row.cells))


def _paths(rows: Sequence[tuple[Path, TableRow]], column: str) -> list[Path]:
    values: dict[Path, list[object]] = {}
    for table, row in rows:
        values.setdefault(table, []).extend(_filled([row], column))
    finders = {table: Finder(table, values[table]) for table in values}
    return [finders[table]("" if row.cells.get(column) is None else str(row.cells[column])) for table, row in rows]


def _divided(rows: list[tuple[Path, TableRow]], column: str) -> dict[str, list[tuple[Path, TableRow]]]:
    """Divides the rows by folders of their images that are named like splits, if "train" and another one exist.

    Rows of images in no such folder belong to "train", as do all rows if there are no such folders.
    """
    found: dict[str | None, list[tuple[Path, TableRow]]] = {}
    for (table, row), path in zip(rows, _paths(rows, column), strict=True):
        inside = path.parts[len(table.parent.parts) : -1] if path.is_relative_to(table.parent) else ()
        found.setdefault(next(filter(None, map(split_name, inside)), None), []).append((table, row))
    if "train" not in found or len(set(found) - {None}) < 2:
        return {"train": rows}
    found["train"] += found.pop(None, [])
    return {split: its for split, its in found.items() if split is not None}


class Listed:
    """Images listed in tables of paths, see `Finder`, and labels.

    A file that does not exist counts as an image that cannot be read, like a damaged one.

    Args:
        splits: the tables of each split.
        image_column: None: found by its content or name.
        label_column: None: found by its name.
        other_columns: columns that contain something else.
        images: files beside the tables, which need not all be listed.
    """

    def __init__(
        self,
        splits: Mapping[str, Sequence[Path]],
        image_column: str | None,
        label_column: str | None,
        other_columns: Collection[str] = (),
        images: Collection[Path] = (),
    ):
        self.tables = splits
        self.image_column = image_column
        self.label_column = label_column
        self.other_columns = other_columns
        self.images = images

    @cached_property
    def rows(self) -> dict[str, list[tuple[Path, TableRow]]]:
        """Each row of each split, and its table. Images of one table in train/ and test/ belong to these splits.

        Raises:
            ValueError: for a split without rows, or whose tables have different columns.
        """
        found = {
            split: [(path, row) for path in paths for row in read_table(path)] for split, paths in self.tables.items()
        }
        for split, rows in found.items():
            if not rows:
                raise ValueError(f"data.path: {abbreviate(self.tables[split])} has no rows. Give a table of images")
            first: dict[Path, list[str]] = {}
            for path, row in rows:
                if ending(path)[:4] in (".csv", ".tsv"):  # objects of JSON may lack some
                    first.setdefault(path, list(row.cells))
            if len({frozenset(names) for names in first.values()}) > 1:
                described = " and ".join(f"{path} ({', '.join(names)})" for path, names in first.items())
                raise ValueError(
                    f"data.path: {described} have different columns, and both are tables of the split {split}. Give "
                    "the file to read as data.path, or name them after their splits"
                )
        return _divided(found["train"], self._image_column(found["train"])) if set(found) == {"train"} else found

    def splits(self) -> list[str]:
        """Names of the splits."""
        return sorted(self.rows)

    def notes(self, used: Collection[str]) -> list[str]:
        """Messages about the tables, and about splits and images that are not used."""
        tables = dict.fromkeys(path.name for split in used for path in _tables(self.rows[split]))
        unused = [split for split in self.rows if split not in used]
        found = [f"images and labels are those of {abbreviate(tables)}"] + [
            f"splits not used: {abbreviate(unused)}"
        ] * bool(unused)
        listed = {os.path.normpath(path) for split in self.rows for path in self._paths(split)}
        if others := [path for path in self.images if os.path.normpath(path) not in listed]:
            found.append(f"{len(others):,} images left out, such as {others[0]}: no table names them")
        return found

    def fingerprint(self) -> str:
        """A hash of the tables and the images."""
        files = [path for paths in self.tables.values() for path in paths]
        images = {path for split in self.rows for path in self._paths(split)}
        return fingerprint([*files, *sorted(images)])

    def _paths(self, split: str) -> list[Path]:
        return _paths(self.rows[split], self._image_column(self.rows[split]))

    def read(self, split: str) -> ImageSplit:
        """The images and labels of a split.

        Raises:
            ValueError: when a column is missing or ambiguous, or when no image exists where the paths say.
        """
        paths, rows = self._paths(split), self.rows[split]
        if not any(path.is_file() for path in paths):
            first = f", such as {paths[0]}" if paths else ""
            raise ValueError(
                f"data.image_column={self._image_column(rows)}: none of the {len(paths)} images of "
                f"{abbreviate(_tables(rows))} is there{first}. Paths are relative to the folder of their table, to one "
                "beside it or the one above; data.image_column names the column that holds them"
            )
        images = Paths([str(path) for path in paths], [row.where for _, row in rows])
        column = self._label_column(split)
        if column is None:
            return ImageSplit(images, np.full(len(paths), -1), [])
        where = f"data.label_column={column}: {abbreviate(_tables(self.rows[split]))}"
        labels, classes = label_positions([row.cells.get(column) for _, row in rows], where)
        seen: dict[Path, int] = {}
        for position, path in enumerate(paths):
            before = seen.setdefault(path, position)
            if labels[before] != labels[position]:
                raise ValueError(
                    f"data.label_column={column}: {path} has two labels, in {rows[before][1].where}, and "
                    f"{rows[position][1].where}. An image has one class: remove one of the rows"
                )
        return ImageSplit(images, labels, classes)

    def captions(self, split: str, column: str) -> list[Any]:
        """The cells of a column.

        Raises:
            ValueError: when there is no column of this name.
        """
        if column not in self._columns(split):
            raise ValueError(
                f"data.caption_column={column}: no such column. There are: {abbreviate(self._columns(split))}"
            )
        return [row.cells.get(column) for _, row in self.rows[split]]

    def _columns(self, split: str) -> list[str]:
        return _columns(self.rows[split])

    def _image_column(self, rows: Sequence[tuple[Path, TableRow]]) -> str:
        columns, tables = _columns(rows), _tables(rows)
        if self.image_column is not None:
            return self._given("image", self.image_column, columns)
        found = _path_columns({table: [row for of, row in rows[:TRIED] if of == table] for table in tables}, columns)
        found = found or [name for name in columns if name.lower() in PATHS]
        if len(found) != 1:
            raise ValueError(
                f"data.image_column is not set, and {abbreviate(tables)} does not tell which column holds the paths of "
                f"images. Give one of {abbreviate(columns)}"
            )
        return found[0]

    def _label_column(self, split: str) -> str | None:
        """The column that the configuration names, else one with a usual name; None where there is no other column.

        A split, such as the test set of a competition, may lack the named column.

        Raises:
            ValueError: where several columns remain, or the named one is in no split.
        """
        columns = self._columns(split)
        if self.label_column is not None:
            if self.label_column not in columns and any(self.label_column in self._columns(name) for name in self.rows):
                return None
            return self._given("label", self.label_column, columns)
        others = [name for name in columns if name not in (self._image_column(self.rows[split]), *self.other_columns)]
        found = [name for name in others if name.lower() in LABELS]
        if HUB_COLUMN in columns and not found:
            return None
        if len(found) > 1 or (not found and others):
            raise ValueError(
                f"data.label_column is not set, and {abbreviate(_tables(self.rows[split]))} does not tell which column "
                f"holds the labels. Give one of {abbreviate(others)}; for images without labels, a table of their "
                "paths alone"
            )
        return found[0] if found else None

    def _given(self, kind: str, name: str, columns: Collection[str]) -> str:
        if name not in columns:
            raise ValueError(f"data.{kind}_column={name}: no such column. There are: {abbreviate(columns)}")
        return name
