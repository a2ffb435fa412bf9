"""Documents in plain files: text, JSON lines, and the Python standard library."""

import ast
import codecs
import json
import re
import sysconfig
import warnings
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from ssl_zoo.data.documents import Document, as_label, as_text, check_columns
from ssl_zoo.data.sources import fingerprint, visible_files

STDLIB = "python:stdlib"
UNLABELLED = {"unsup", "unsupervised", "unlabelled", "unlabeled"}
"""Class folders with these names hold text without a label."""


class TextFiles:
    """Plain text and JSON lines: one file, or a folder of .txt and .jsonl files.

    A folder with an entry called train (a folder, or files train*.txt) has one split an entry; otherwise all of it is
    the split "train". Sub-folders of a split are classes, as in the Large Movie Review Dataset; beside them, loose text
    files are left out, as hidden files are everywhere.
    """

    def __init__(self, path: Path, documents: str | None, text_column: str, label_column: str | None):
        self.path, self.text_column, self.label_column = path, text_column, label_column
        self.documents = documents or ("line" if path.is_file() else "file")
        self._splits: dict[str, list[Path]] = {}
        if path.is_file():
            self._splits = {"train": [path]}
            return
        files = [file for file in visible_files(path) if file.suffix.lower() in (".txt", ".jsonl")]
        # train/..., train.txt and train-00001.txt belong to the split train
        entries = {file: re.split(r"[.\-_]", file.relative_to(path).parts[0])[0] for file in files}
        divided = "train" in entries.values()
        for file in files:
            self._splits.setdefault(entries[file] if divided else "train", []).append(file)

    def key(self) -> dict[str, Any]:
        files = [file for split in self.splits() for file in self._splits[split]]
        read_as = [self.documents, self.text_column, self.label_column]
        base = self.path if self.path.is_dir() else self.path.parent
        return {"kind": "files", "files": fingerprint(files, base), "read_as": read_as}

    def splits(self) -> list[str]:
        return sorted(self._splits)

    def class_names(self) -> None:
        return None

    def read(self, split: str, labelled: bool) -> Iterator[Document]:
        classes = {file: self._class_folder(file, split) for file in self._splits[split]}
        has_classes = any(classes.values())
        for file, name in classes.items():
            if file.suffix.lower() == ".jsonl":
                yield from self._json_lines(file, labelled)
            elif name or not has_classes:
                label = name if labelled and name not in UNLABELLED else None
                yield from (Document(text, label) for text in _divide(_lines(file), self.documents))

    def _class_folder(self, file: Path, split: str) -> str | None:
        parts = file.relative_to(self.path).parts[:-1]
        parts = parts[1:] if parts[:1] == (split,) else parts
        return parts[0] if parts else None

    def _json_lines(self, file: Path, labelled: bool) -> Iterator[Document]:
        label_column = self.label_column if labelled else None
        for number, line in enumerate(_lines(file), start=1):
            if not line.strip():
                continue
            where = f"{file}, line {number}"
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise ValueError(f"{where}: not JSON ({error}). Give one JSON object a line") from error
            if not isinstance(row, dict):
                raise ValueError(f"{where}: not a JSON object. Give one JSON object a line")
            check_columns(row, where, self.text_column, label_column)
            label = row[label_column] if label_column else None
            yield Document(as_text(row[self.text_column], where, self.text_column), as_label(label))


class StandardLibrary:
    """English documentation inside the running Python: docstrings and the reference manual's topics.

    Nothing is imported or run, and a text that occurs twice is read once. Tests and installed packages are left out.
    """

    skipped = frozenset({"site-packages", "dist-packages", "test", "tests", "idle_test"})

    @cached_property
    def _paths(self) -> list[Path]:
        root = Path(sysconfig.get_paths()["stdlib"])
        files = [file for file in visible_files(root) if file.suffix == ".py"]
        paths = [file for file in files if not self.skipped & set(file.relative_to(root).parts)]
        if not paths:
            raise ValueError(f"data.path={STDLIB}: this Python has no source files in {root}. Give another data.path")
        return paths

    def key(self) -> dict[str, Any]:
        return {"kind": STDLIB, "files": fingerprint(self._paths)}

    def splits(self) -> list[str]:
        return ["train"]

    def class_names(self) -> None:
        return None

    def read(self, split: str, labelled: bool) -> Iterator[Document]:
        seen: set[str] = set()
        for path in self._paths:
            for text in _documentation(path):
                if text and text not in seen:
                    seen.add(text)
                    yield Document(text, None)


def _documentation(path: Path) -> Iterator[str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the standard library has odd escapes in its strings
        tree = ast.parse(path.read_bytes())
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield ast.get_docstring(node) or ""
        elif isinstance(node, ast.Dict) and path.parent.name == "pydoc_data":  # topics.py: {"topic": "its text"}
            yield from (v.value for v in node.values if isinstance(v, ast.Constant) and isinstance(v.value, str))


def _lines(path: Path) -> Iterator[str]:
    """The lines of a UTF-8 file, with or without a byte-order mark. Raises: ValueError naming line and byte."""
    position = 0
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                yield line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                is_utf16 = number == 1 and line.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
                remedy = "iconv -f UTF-16 -t UTF-8" if is_utf16 else "iconv -f latin1 -t UTF-8"
                raise ValueError(
                    f"{path}, line {number}, byte {position + error.start}: not UTF-8 "
                    f"(0x{line[error.start]:02x}). Convert the file, e.g. {remedy}"
                ) from error
            position += len(line)


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
