"""Documents in plain files: text, tables, and the Python standard library."""

import ast
import sysconfig
import warnings
from collections import deque
from collections.abc import Collection, Iterator
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

from ssl_zoo.data.labels import as_label
from ssl_zoo.data.layout import Layout, Walk, count_endings, ending
from ssl_zoo.data.locate import fingerprint
from ssl_zoo.data.splits import WORDS
from ssl_zoo.data.tables import OPENERS, READABLE, read_lines, read_table
from ssl_zoo.data.text.documents import Document, as_text, check_columns

STDLIB = "python:stdlib"
TEXT_ENDINGS = {".txt", *(f".txt{outer}" for outer in OPENERS)}
"""Endings of plain text in a folder; a single file may have any."""


def text_layout(walk: Walk) -> Layout | None:
    """The layout of a folder of text; None if its tables are read by the `datasets` library.

    Class folders of text take precedence over tables, and tables over other text: a table beside class folders is
    ignored, as is text beside a table, which is a readme or a list of classes.

    Raises:
        ValueError: for a folder without any of them.
    """
    texts = Layout(walk, TEXT_ENDINGS, "texts")
    if texts.has_classes:
        return texts
    there = {ending(path) for path in walk.files}
    if there & {".parquet", ".arrow"}:
        return None
    lists = {kind for kind in READABLE if not kind.startswith(".json") or kind.startswith(".jsonl")}
    for kinds in (lists, READABLE - lists):  # a .json often describes other files
        if there & kinds:
            return Layout(walk, kinds, "tables")
    if not texts.splits:
        raise ValueError(
            f"data.path={walk.root}: nothing there is read as text, but .txt, tables (.csv, .tsv, .jsonl, .json, "
            f".parquet) and their .gz, .bz2 and .xz. It holds {count_endings(walk.files)}. Rename or convert the "
            "files; for images give data=folder"
        )
    return texts


class TextFiles:
    """Plain text and tables: one file, or a folder, see `text_layout`.

    Where the text of a split lies in folders, they are its classes, as in the Large Movie Review Dataset, and loose
    text beside them is left out. A class folder called "unsup" or similar contains text without a label.
    """

    def __init__(
        self,
        path: Path,
        documents: str | None,
        text_column: str,
        label_column: str | None,
        layout: Layout | None = None,
    ):
        """Finds the files.

        Args:
            path: a file or a folder.
            documents: see `open_texts`.
            text_column: of tables.
            label_column: of tables.
            layout: of a folder, if it is known already.

        Raises:
            ValueError: for a folder that cannot be read.
        """
        self.path = path
        self.text_column = text_column
        self.label_column = label_column
        self.documents = documents or ("line" if path.is_file() else "file")
        self.layout = layout if layout or path.is_file() else text_layout(Walk(path))
        self._splits = self.layout.splits if self.layout else {"train": [path]}
        self._classes = {split: self._class_folders(split) for split in self._splits}

    def _class_folders(self, split: str) -> list[str]:
        if self.layout is None or self.layout.kind == "tables":
            return []
        self.layout.check_filled(split, "text")
        return self.layout.classes(split)

    def key(self) -> dict[str, Any]:
        """JSON values that determine the content and how it is read."""
        files = [file for split in self.splits() for file in self._splits[split]]
        read_as = [self.documents, self.text_column, self.label_column, self.splits(), self._classes]
        base = self.path if self.path.is_dir() else self.path.parent
        return {"kind": "files", "rules": 2, "files": fingerprint(files, base), "read_as": read_as}

    def splits(self) -> list[str]:
        """Names of the splits."""
        return sorted(self._splits)

    def class_names(self) -> None:
        """None: the labels determine the classes."""
        return None

    def notes(self, used: Collection[str]) -> list[str]:
        """Messages about files that are not read when the splits `used` are."""
        if self.layout is None:
            unread = self.label_column and ending(self.path) not in READABLE
            return [f"data.label_column={self.label_column} is not used: plain text has no columns"] if unread else []
        pairs = [(file, split) for split in used if self._classes[split] for file in self._splits[split]]
        loose = [file for file, split in pairs if self.layout.class_of(file, split) is None]
        found = self.layout.notes(used)
        return [*found, f"text beside class folders left out: {count_endings(loose)}"] if loose else found

    def sample_rows(self, limit: int) -> list[dict[str, Any]]:
        """The cells of the first rows of the first table; [] for plain text."""
        tables = [file for split in self.splits() for file in self._splits[split] if ending(file) in READABLE]
        return [row.cells for row in islice(read_table(tables[0]), limit)] if tables else []

    def undecodable(self, limit: int) -> list[str]:
        """The messages about those of the first `limit` files that are no text."""
        found = []
        for file in islice((file for split in self.splits() for file in self._splits[split]), limit):
            try:
                for _ in read_lines(file):
                    pass
            except ValueError as error:
                found.append(str(error))
        return found

    def read(self, split: str, labelled: bool) -> Iterator[Document]:
        """The documents of a split; labels only if `labelled`."""
        for file in self._splits[split]:
            if ending(file) in READABLE:
                yield from self._rows(file, self.label_column if labelled else None)
                continue
            name = self.layout.class_of(file, split) if self.layout and self._classes[split] else None
            if name or not self._classes[split]:
                known = labelled and name and WORDS.get(name.lower()) != "unlabelled"
                yield from (
                    Document(text, name if known else None) for text in _divide(read_lines(file), self.documents)
                )

    def _rows(self, file: Path, label_column: str | None) -> Iterator[Document]:
        for where, cells in read_table(file):
            check_columns(cells, where, self.text_column, label_column)
            label = None
            if label_column:
                label = as_label(cells[label_column], f"data.label_column={label_column}: {where}")
            yield Document(as_text(cells[self.text_column], where, self.text_column), label)


class StandardLibrary:
    """English documentation in the running Python: docstrings and the topics of the reference manual.

    Nothing is imported or run, and a text that occurs twice is read once. Tests and installed packages are left out.
    """

    skipped = frozenset({"site-packages", "dist-packages", "test", "tests", "idle_test"})

    @cached_property
    def _paths(self) -> list[Path]:
        root = Path(sysconfig.get_paths()["stdlib"])
        files = [file for file in Walk(root).files if file.suffix == ".py"]
        paths = [file for file in files if not self.skipped & set(file.relative_to(root).parts)]
        if not paths:
            raise ValueError(f"data.path={STDLIB}: this Python has no source files in {root}. Give another data.path")
        return paths

    def key(self) -> dict[str, Any]:
        """JSON values that determine the content."""
        return {"kind": STDLIB, "files": fingerprint(self._paths)}

    def splits(self) -> list[str]:
        """Names of the splits."""
        return ["train"]

    def class_names(self) -> None:
        """None: there are no classes."""
        return None

    def notes(self, used: Collection[str]) -> list[str]:
        """No messages."""
        return []

    def sample_rows(self, limit: int) -> list[dict[str, Any]]:
        """[]: there are no tables."""
        return []

    @cached_property
    def _texts(self) -> list[str]:
        """Some megabytes, kept because a corpus is read twice and parsing the files takes seconds."""
        found = (text for path in self._paths for text in _documentation(path))
        return list(dict.fromkeys(filter(None, found)))

    def read(self, split: str, labelled: bool) -> Iterator[Document]:
        """The documents."""
        return (Document(text, None) for text in self._texts)


def _documentation(path: Path) -> Iterator[str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the standard library has invalid escapes in its strings
        tree = ast.parse(path.read_bytes())
    has_topics = path.parent.name == "pydoc_data"  # topics.py: {"topic": "its text"}
    for node in ast.walk(tree) if has_topics else _walk_statements(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield ast.get_docstring(node) or ""
        elif isinstance(node, ast.Dict):
            yield from (v.value for v in node.values if isinstance(v, ast.Constant) and isinstance(v.value, str))


def _walk_statements(tree: ast.AST) -> Iterator[ast.AST]:
    """The statements of a tree in the order of `ast.walk`, which spends most of its time on expressions."""
    todo = deque([tree])
    while todo:
        node = todo.popleft()
        for field in ("body", "handlers", "orelse", "finalbody", "cases"):
            todo.extend(getattr(node, field, ()))
        yield node


def _divide(lines: Iterator[str], documents: str) -> Iterator[str]:
    if documents == "line":
        yield from lines
        return
    text: list[str] = []
    for line in lines:
        if documents == "blank" and not line.strip():
            yield "".join(text)
            text = []
        else:
            text.append(line)
    yield "".join(text)
