"""Sources of text: a source has named splits, and a split is a stream of documents with labels."""

from collections.abc import Collection, Iterator
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from ssl_zoo.data.labels import as_label
from ssl_zoo.data.layout import Walk, ending
from ssl_zoo.data.locate import data_files, data_layout, error_summary, fingerprint, has_card, load_split, locate
from ssl_zoo.data.text.documents import Document, as_text, check_columns
from ssl_zoo.data.text.files import STDLIB, StandardLibrary, TextFiles, text_layout


class TextSource(Protocol):
    """Documents in named splits."""

    def key(self) -> dict[str, Any]:
        """JSON values that change whenever the content, or the way in which it is read, changes."""

    def splits(self) -> list[str]:
        """Names of all splits, in a fixed order."""

    def class_names(self) -> list[str] | None:
        """The classes in their official order; None if the labels determine them."""

    def notes(self, used: Collection[str]) -> list[str]:
        """Messages about data that is not read when the splits `used` are."""

    def sample_rows(self, limit: int) -> list[dict[str, Any]]:
        """The cells of the first rows of a table, by column; [] for plain text."""

    def read(self, split: str, labelled: bool) -> Iterator[Document]:
        """The documents of a split, in a fixed order.

        Args:
            split: its name.
            labelled: whether to read labels; if not, all are None.

        Raises:
            ValueError: naming the file or column that cannot be read.
        """


def open_texts(
    path: str,
    root: str | None = None,
    name: str | None = None,
    text_column: str = "text",
    label_column: str | None = None,
    documents: str | None = None,
) -> TextSource:
    """The source that `path` stands for.

    Args:
        path: "python:stdlib"; a file of text or a table; a folder of them (see `files.text_layout`); a folder in the
            Hub's layout; or a Hub id, for which a local copy is searched first (see `locate.locate`).
        root: a folder that is searched first.
        name: the configuration of a Hub data set that has several.
        text_column: of tables.
        label_column: of tables.
        documents: how plain text is divided: "line", "blank" (paragraphs between blank lines) or "file". By default a
            single file is divided into lines, and each file of a folder is a document.

    Raises:
        ValueError: for a folder or file that does not exist, or an unknown value of `documents`.
    """
    if documents not in (None, "line", "blank", "file"):
        raise ValueError(f"data.documents={documents}: give line, blank (blank-line separated), file or null")
    if path == STDLIB:
        return StandardLibrary()
    place = locate(path, root)
    if isinstance(place, Path) and place.is_file() and ending(place) not in (".parquet", ".arrow"):
        return TextFiles(place, documents, text_column, label_column)
    if isinstance(place, Path) and place.is_dir() and name is None and not has_card(place):
        walk = Walk(place)
        if not walk.files:
            raise ValueError(f"data.path={path}: the folder {place} holds no files. Give a folder with text")
        if layout := text_layout(walk):
            return TextFiles(place, documents, text_column, label_column, layout)
    return TextTables(path, place, name, text_column, label_column)


class TextTables:
    """Data for the `datasets` library: a Hub id, a folder in the Hub's layout, parquet files.

    Local tables are streamed, not copied; a data set from the Hub is downloaded once, into that library's own cache.
    """

    def __init__(self, path: str, place: str | Path, name: str | None, text_column: str, label_column: str | None):
        """Keeps the settings.

        Args:
            path: as in the configuration.
            place: the local file or folder, or the Hub id.
            name: the configuration of a Hub data set.
            text_column: its name.
            label_column: its name.
        """
        self.path = path
        self.place = place
        self.name = name
        self.text_column = text_column
        self.label_column = label_column

    @cached_property
    def _sets(self) -> dict[str, Any]:
        import datasets  # slow to import, and not needed once the tokens are cached

        try:
            files = data_files(self.place) if isinstance(self.place, Path) and self.name is None else None
            if files is not None:
                return {split: load_split(datasets, files, split, streaming=True) for split in files}
            builder = datasets.load_dataset_builder(str(self.place), self.name)
            options: dict[str, Any] = {"streaming": True} if isinstance(self.place, Path) else {}
            if hasattr(builder.config, "keep_default_na"):  # CSV, where "NA" and "null" are words
                options |= {"keep_default_na": False, "na_values": [""]}
            return datasets.load_dataset(str(self.place), self.name, **options)
        except (OSError, ValueError) as error:
            config = f" data.name={self.name}" if self.name else ""
            remedy = "Give a file, a folder in the Hub's layout, or a Hub id"
            if isinstance(self.place, str):
                remedy = "There is no folder of this name either. Check the id and the network, or give a local folder"
            raise ValueError(f"data.path={self.path}{config}: {error_summary(error)}. {remedy}") from error

    def key(self) -> dict[str, Any]:
        """JSON values that determine the content and how it is read."""
        read_as = [self.name, self.text_column, self.label_column]
        if isinstance(self.place, Path):
            files = [self.place] if self.place.is_file() else Walk(self.place).files
            base = self.place.parent if self.place.is_file() else self.place
            return {"kind": "tables", "rules": 2, "files": fingerprint(files, base), "read_as": read_as}
        # The last folders of such a path are named by data set, configuration, version and commit.
        files = [file["filename"] for rows in self._sets.values() for file in rows.cache_files]
        return {
            "kind": "hub",
            "rules": 2,
            "files": ["/".join(Path(file).parts[-5:]) for file in files],
            "read_as": read_as,
        }

    def splits(self) -> list[str]:
        """Names of the splits."""
        return list(self._sets)

    def notes(self, used: Collection[str]) -> list[str]:
        """Messages about files that are not read."""
        layout = data_layout(self.place) if isinstance(self.place, Path) and self.place.is_dir() else None
        return layout.notes(used) if layout else []

    def class_names(self) -> list[str] | None:
        """The classes of a ClassLabel column, None for any other column."""
        if self.label_column is None:
            return None
        import datasets

        features = next(iter(self._sets.values())).features or {}
        label = features.get(self.label_column)
        return label.names if isinstance(label, datasets.ClassLabel) else None

    def sample_rows(self, limit: int) -> list[dict[str, Any]]:
        """The cells of the first rows of the first split."""
        return [dict(row) for row in islice(next(iter(self._sets.values())), limit)]

    def read(self, split: str, labelled: bool) -> Iterator[Document]:
        """The documents of a split; labels only if `labelled`."""
        import pyarrow  # type: ignore[import-untyped]  # comes with datasets

        names = self.class_names() if labelled else None
        label_column = self.label_column if labelled else None
        where = f"data.path={self.path}, split {split},"
        try:
            for rows in self._sets[split].iter(batch_size=1000):
                check_columns(rows, where, self.text_column, label_column)
                texts = rows[self.text_column]
                for text, label in zip(texts, rows[label_column] if label_column else [None] * len(texts), strict=True):
                    label = as_label(label, f"data.label_column={label_column}: {where}")
                    if names is not None and label is not None:
                        label = names[int(label)]
                    yield Document(as_text(text, where, self.text_column), label)
        except (OSError, pyarrow.ArrowInvalid) as error:
            raise ValueError(f"{where} cannot be read: {error_summary(error)}. Replace the file") from error
