"""Where texts come from: every source is a set of named splits, and a split is a stream of documents with labels."""

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from ssl_zoo.data.documents import Document, as_label, as_text, check_columns
from ssl_zoo.data.sources import fingerprint, first_line, locate, visible_files
from ssl_zoo.data.text_files import STDLIB, StandardLibrary, TextFiles

TABLES = {".parquet", ".arrow", ".csv", ".tsv", ".json"}
"""Endings that only the `datasets` library reads; a folder with such files is read in the Hub's layout."""


class Source(Protocol):
    """Documents in named splits."""

    def key(self) -> dict[str, Any]:
        """JSON values that change whenever the content or the way of reading it changes."""

    def splits(self) -> list[str]:
        """Names of all splits, in a fixed order."""

    def class_names(self) -> list[str] | None:
        """The classes in their official order, None when the labels themselves have to tell."""

    def read(self, split: str, labelled: bool) -> Iterator[Document]:
        """The documents of one split, in a fixed order. labelled: False leaves the labels unread, all None.

        Raises: ValueError naming the file or column that cannot be read.
        """


def open_source(
    path: str,
    root: str | None = None,
    name: str | None = None,
    text_column: str = "text",
    label_column: str | None = None,
    documents: str | None = None,
) -> Source:
    """The source that `path` stands for.

    path: "python:stdlib"; a plain text, .jsonl or table file; a folder of .txt or .jsonl files; a folder in the Hub's
        layout; or a Hub id, of which a local copy is looked for first (see `sources.locate`).
    name: the configuration of a Hub data set that has several.
    documents: how plain text is divided: "line", "blank" (paragraphs between blank lines) or "file". By default a
        single file is read by lines, and each file of a folder is a document.

    Raises: ValueError for a folder or file that is not there, or an unknown way to divide.
    """
    if documents not in (None, "line", "blank", "file"):
        raise ValueError(f"data.documents={documents}: give line, blank (blank-line separated), file or null")
    if path == STDLIB:
        return StandardLibrary()
    place = locate(path, root)
    if isinstance(place, Path):
        endings = {file.suffix.lower() for file in ([place] if place.is_file() else visible_files(place))}
        if not endings:
            raise ValueError(f"data.path={path}: the folder {place} holds no files. Give a folder with text")
        if not endings & TABLES and (place.is_file() or endings & {".txt", ".jsonl"}):
            return TextFiles(place, documents, text_column, label_column)
    return Tables(path, place, name, text_column, label_column)


class Tables:
    """Whatever the `datasets` library reads: a Hub id, a folder in the Hub's layout, a parquet or CSV file.

    Local tables are streamed, not copied; a data set of the Hub is downloaded once, into that library's own cache.
    """

    def __init__(self, path: str, place: str | Path, name: str | None, text_column: str, label_column: str | None):
        """path: as the user wrote it; place: the local file or folder, or the Hub id."""
        self.path, self.place, self.name = path, place, name
        self.text_column, self.label_column = text_column, label_column

    @cached_property
    def _sets(self) -> dict[str, Any]:
        import datasets  # slow to import, and not needed once the tokens are cached

        try:
            if isinstance(self.place, str):
                return datasets.load_dataset(self.place, self.name)
            if self.place.is_dir():
                return datasets.load_dataset(str(self.place), self.name, streaming=True)
            ending = self.place.suffix.lower()
            kind = {".tsv": "csv"}.get(ending, ending[1:])
            options: dict[str, Any] = {"sep": "\t"} if ending == ".tsv" else {}
            return datasets.load_dataset(kind, data_files={"train": str(self.place)}, streaming=True, **options)
        except (OSError, ValueError) as error:
            config = f" data.name={self.name}" if self.name else ""
            remedy = "Give a file, a folder in the Hub's layout, or a Hub id"
            if isinstance(self.place, str):
                remedy = "There is no folder of this name either. Check the id and the network, or give a local folder"
            raise ValueError(f"data.path={self.path}{config}: {first_line(error)}. {remedy}") from error

    def key(self) -> dict[str, Any]:
        read_as = [self.name, self.text_column, self.label_column]
        if isinstance(self.place, Path):
            files = [self.place] if self.place.is_file() else visible_files(self.place)
            base = self.place.parent if self.place.is_file() else self.place
            return {"kind": "tables", "files": fingerprint(files, base), "read_as": read_as}
        # such a file lies in a folder named by data set, configuration, version and commit
        files = [file["filename"] for rows in self._sets.values() for file in rows.cache_files]
        return {"kind": "hub", "files": ["/".join(Path(file).parts[-5:]) for file in files], "read_as": read_as}

    def splits(self) -> list[str]:
        return list(self._sets)

    def class_names(self) -> list[str] | None:
        if self.label_column is None:
            return None
        import datasets

        features = next(iter(self._sets.values())).features or {}
        label = features.get(self.label_column)
        return label.names if isinstance(label, datasets.ClassLabel) else None

    def read(self, split: str, labelled: bool) -> Iterator[Document]:
        import pyarrow  # type: ignore[import-untyped]  # comes with datasets

        names = self.class_names() if labelled else None
        label_column = self.label_column if labelled else None
        where = f"data.path={self.path}, split {split},"
        try:
            for rows in self._sets[split].iter(batch_size=1000):
                check_columns(rows, where, self.text_column, label_column)
                texts = rows[self.text_column]
                for text, label in zip(texts, rows[label_column] if label_column else [None] * len(texts), strict=True):
                    label = as_label(label)
                    if names is not None and label is not None:
                        label = names[int(label)]
                    yield Document(as_text(text, where, self.text_column), label)
        except (OSError, pyarrow.ArrowInvalid) as error:
            raise ValueError(f"{where} cannot be read: {first_line(error)}. Replace the file") from error
