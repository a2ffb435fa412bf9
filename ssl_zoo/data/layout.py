"""The structure of a folder of images or text: its splits, the classes of each, and files that belong to neither."""

import os
from collections import Counter
from collections.abc import Collection, Iterable
from functools import cached_property
from pathlib import Path
from typing import Literal

from ssl_zoo.data.splits import file_split, like_splits, split_name, stem

IGNORED = {"__macosx", "thumbs.db", "desktop.ini", "$recycle.bin", "system volume information", "@eadir"}
"""Files that operating systems leave behind, besides names that begin with a dot."""


TABLES = {".csv", ".tsv", ".jsonl", ".ndjson", ".json"}
TABLES |= {kind + outer for kind in TABLES for outer in (".gz", ".bz2", ".xz")} | {".parquet", ".arrow"}
"""Endings of tables."""


def is_hidden(name: str) -> bool:
    """Whether a file or folder is ignored because of its name."""
    return name.startswith(".") or name.lower() in IGNORED


def ending(path: Path) -> str:
    """The file type in lower case, such as ".jpg", ".csv" or, for a compressed file, ".csv.gz"; "" for none."""
    outer = path.suffix.lower()
    return Path(path.stem).suffix.lower() + outer if outer in (".gz", ".bz2", ".xz") else outer


class Walk:
    """Finds every visible file below a folder once, even where links form a cycle.

    Attributes:
        files: sorted. Links without a target and named pipes are among them.
        repeated: links that were not followed, since their target is counted elsewhere or contains the folder itself.
        hidden: folders that were not entered, since their names begin with a dot.
    """

    def __init__(self, root: Path):
        self.root = root
        self.files: list[Path] = []
        self.repeated: list[Path] = []
        self.hidden: list[Path] = []
        self._root = os.path.realpath(root)
        self._folders: set[str] = set()
        self._links: list[Path] = []
        self._scan(root, top=True)
        # Links come after all real files, so that a file is found where it is stored.
        targets = {os.path.realpath(path.parent) + os.sep + path.name for path in self.files} if self._links else set()
        while self._links:
            links, self._links = sorted(self._links), []
            for link in links:
                target = os.path.realpath(link)
                if link.is_dir():
                    self._scan(link)
                elif target in targets:
                    self.repeated.append(link)
                else:
                    targets.add(target)
                    self.files.append(link)
        self.files.sort()

    def _scan(self, folder: Path, top: bool = False) -> None:
        real = os.path.realpath(folder)
        if real in self._folders or (not top and (self._root + os.sep).startswith(real.rstrip(os.sep) + os.sep)):
            self.repeated.append(folder)
            return
        self._folders.add(real)
        try:
            with os.scandir(folder) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
        except PermissionError as error:
            raise ValueError(f"data.path={self.root}: {folder} cannot be read. Allow it (chmod), or move it") from error
        if top:  # `train` may be a link to a folder beside it, which is then not another split
            splits = {entry.name: split_name(entry.name) for entry in found}
            found.sort(key=lambda each: (splits[each.name] is None, each.is_symlink(), splits[each.name] != "train"))
        for entry in found:
            path = folder / entry.name
            if is_hidden(entry.name):
                if entry.is_dir() and entry.name.lower() not in IGNORED:
                    self.hidden.append(path)
            elif entry.is_symlink() and not (top and split_name(entry.name) and path.is_dir()):
                self._links.append(path)
            elif entry.is_dir():
                self._scan(path)
            else:
                self.files.append(path)


class Layout:
    """The splits and classes of those files of a folder whose ending is one of `endings`.

    Args:
        walk: the files.
        endings: in lower case.
        kind: what the files are. Images and documents may be in class folders; the names of texts and tables may be
            names of splits.

    Attributes:
        root: the folder; if it contains nothing but one folder, that one.
        divided: whether the entries of `root` are splits, by their names: all of them are; or there is `train` and
            another split; or a folder `train` that contains folders; or a file train; or a table of any split. Entries
            with other names are further splits then. Else ("bus", "car", "train") all of `root` is the split "train".
        splits: the files of each, sorted.
        repeated: see `Walk`.
        others: visible files with other endings.
        hidden: folders not entered that contain files with these endings.

    Raises:
        ValueError: where two folders are the same split, where class folders look like splits, where the training
            split is a link to another, or where a table or text exists in two formats.
    """

    def __init__(self, walk: Walk, endings: Collection[str], kind: Literal["images", "texts", "tables"]):
        self.kind = kind
        self.repeated = walk.repeated
        self.hidden = [folder for folder in walk.hidden if any(ending(path) in endings for path in folder.glob("*"))]
        self.others = [path for path in walk.files if ending(path) not in endings]
        files = [path for path in walk.files if ending(path) in endings]
        self._holding = {folder for path in files for folder in path.parents}
        self.root = self._inside(walk.root, files)
        self.divided = self._is_divided(files)
        self.splits: dict[str, list[Path]] = {} if self.divided or not files else {"train": files}
        if self.divided:
            self._divide(files)
        self._folders = {name: self._class_root(name) for name in self.splits}
        self._check_links()
        if kind != "images":
            self._check_formats(files)
        for name in self.splits:
            self._check_classes(name)

    def _subfolders(self, folder: Path) -> list[Path]:
        """Folders that are not counted elsewhere; for tables only those that contain some, others contain images."""
        folders = [path for path in subfolders(folder) if path not in self.repeated]
        return folders if self.kind != "tables" else [path for path in folders if path in self._holding]

    def _inside(self, root: Path, files: list[Path]) -> Path:
        """Descends from `root` as long as a folder contains one other folder and nothing else."""
        beside = {path.parent for path in files} | {path.parent for path in self.others if ending(path) in TABLES}
        folders = self._subfolders(root)
        while len(folders) == 1 and not split_name(folders[0].name) and root not in beside:
            root = folders[0]
            folders = self._subfolders(root)
        return root

    def _is_divided(self, files: list[Path]) -> bool:
        folders = self._subfolders(self.root)
        loose = [path for path in files if path.parent == self.root]
        by_file = [None if self.kind == "images" else file_split(path) for path in loose]
        by_folder = [split_name(folder.name) for folder in folders]
        named = [*by_folder, *by_file]
        if "train" in by_file or (self.kind == "tables" and any(by_file)):
            return True
        if "train" in by_folder and len(set(named) - {None}) > 1:
            return True
        nested = any(split_name(folder.name) == "train" and self._subfolders(folder) for folder in folders)
        return nested or (bool(named) and all(named))

    def _divide(self, files: list[Path]) -> None:
        entries: dict[str, set[str]] = {}
        for path in files:
            entry = path.relative_to(self.root).parts[0]
            if path.parent == self.root:
                name, entry = file_split(path) or stem(path), "files"
            else:
                name = split_name(entry) or entry
            self.splits.setdefault(name, []).append(path)
            entries.setdefault(name, set()).add(entry)
        for folder in self._subfolders(self.root):  # a folder without files can be a split too
            if split := split_name(folder.name):
                self.splits.setdefault(split, [])
        for name, names in entries.items():
            if len(names) > 1:
                raise ValueError(
                    f"data.path={self.root}: {' and '.join(sorted(names))} are both the split {name}. "
                    "Join them, or rename one"
                )

    def folder(self, split: str) -> Path:
        """The folder that contains the classes of a split."""
        return self._folders.get(split, self.root)

    def _class_root(self, split: str) -> Path:
        """The folder of a split; if that contains only another one (train/train, train/images/cat), the other.

        A single folder with files in it is a class, unless it has the name of the split.
        """
        if not self.divided:
            return self.root
        named = [path for path in self._subfolders(self.root) if (split_name(path.name) or path.name) == split]
        root = named[0] if named else self.root
        holding = {path.parent for path in self.splits[split]}
        while named and root not in holding and len(inner := self._subfolders(root)) == 1:
            if inner[0] in holding and split_name(inner[0].name) != split:
                break
            root = inner[0]
        return root

    def _check_links(self) -> None:
        for link in self.repeated:
            if link.parent == self.root and split_name(link.name) == "train":
                raise ValueError(
                    f"data.path={self.root}: {link} is a link to {os.path.realpath(link)}, which is another split "
                    "already. Put the training examples in a folder of their own"
                )

    def _check_formats(self, files: list[Path]) -> None:
        """Raises ValueError for train.csv beside train.jsonl, which probably hold the same examples."""
        found: dict[Path, Path] = {}
        for path in files:
            first = found.setdefault(path.with_name(path.name[: len(path.name) - len(ending(path))]), path)
            if first != path:
                raise ValueError(
                    f"data.path={self.root}: {first.name} and {path.name} of {path.parent} look like one table in two "
                    "formats, whose examples would count twice. Remove one, or give the file to read as data.path"
                )

    def class_of(self, path: Path, split: str) -> str | None:
        """The class folder that contains `path`, None for a file directly in the split."""
        parts = path.relative_to(self.folder(split)).parts
        return parts[0] if len(parts) > 1 else None

    def classes(self, split: str) -> list[str]:
        """The class folders of the split, including empty ones; [] where the files are in none."""
        if not any(self.class_of(path, split) for path in self.splits[split]):
            return []
        return [path.name for path in self._subfolders(self.folder(split))]

    def check_filled(self, split: str, what: str) -> None:
        """Checks that no class folder is empty.

        Args:
            split: its name.
            what: "images" or "text", for the message.

        Raises:
            ValueError: for a class folder without files.
        """
        filled = {self.class_of(path, split) for path in self.splits[split]}
        if empty := [name for name in self.classes(split) if name not in filled]:
            raise ValueError(
                f"data.path={self.root}: no {what} in class {abbreviate(empty)} of {self.folder(split)}; "
                "remove its folder"
            )

    @cached_property
    def has_classes(self) -> bool:
        """Whether the files of a split are in two class folders or more."""
        return any(
            len({self.class_of(path, split) for path in files} - {None}) > 1 for split, files in self.splits.items()
        )

    def _check_classes(self, split: str) -> None:
        """Raises ValueError where the folders of a split are splits themselves, so that test data would be trained on.

        They are if their entries have names of splits, or if all of them contain the same two folders or more.
        """
        below: dict[str, set[str]] = {}
        for path in self.splits[split]:
            parts = path.relative_to(self.folder(split)).parts
            if len(parts) > 1:
                found = below.setdefault(parts[0], set())
                if len(parts) > 2 or (self.kind == "tables" and not self.divided and file_split(path)):
                    found.add(parts[1])
        inner = list(below.values())
        same = len(inner) > 1 and len(inner[0]) > 1 and all(names == inner[0] for names in inner)
        splits = {name for names in inner for name in names if split_name(Path(name).stem)}
        if like := like_splits(below):
            raise ValueError(
                f"data.path={self.root}: the folders {abbreviate(like)} of {self.folder(split)} are called like "
                "splits. Name them train and test if they are, or give one of them as data.path"
            )
        if same or splits:
            raise ValueError(
                f"data.path={self.root}: the folders {abbreviate(below)} of {self.folder(split)} hold "
                f"{abbreviate(sorted(inner[0] if same else splits))}, so it is unclear which are splits and which are "
                "classes. Arrange them as <path>/train/<class>/ and <path>/test/<class>/, or give one of them as "
                "data.path"
            )

    def notes(self, used: Collection[str], named: Collection[str] = ()) -> list[str]:
        """Messages about files that are not read.

        Args:
            used: the splits that are read.
            named: endings of files that the ones which are read may name.
        """
        found = []
        if extra := [f"{name} ({len(files):,} files)" for name, files in self.splits.items() if name not in used]:
            found.append(f"splits not used: {abbreviate(extra)}")
        if others := [path for path in self.others if ending(path) not in named]:
            found.append(f"files left out by their endings: {count_endings(others)}")
        if self.hidden:
            found.append(f"folders left out, whose names begin with a dot: {abbreviate(self.hidden)}")
        if self.repeated:
            found.append(
                f"{len(self.repeated)} links left out, such as {self.repeated[0]}: they lead to what is counted already"
            )
        return found


def subfolders(folder: Path) -> list[Path]:
    """The visible folders in a folder, sorted."""
    return sorted(path for path in folder.iterdir() if path.is_dir() and not is_hidden(path.name))


def count_endings(paths: Iterable[Path]) -> str:
    """Counts files by ending, the most frequent first: "40 .jfif (such as a/012.jfif), 2 without an ending"."""
    examples: dict[str, Path] = {}
    counts: Counter[str] = Counter()
    for path in paths:
        counts[ending(path)] += 1
        examples.setdefault(ending(path), path)
    return abbreviate(
        f"{n:,} {kind or 'without an ending'} (such as {examples[kind]})" for kind, n in counts.most_common()
    )


def abbreviate(names: Iterable[object]) -> str:
    """Lists the first ten for a message."""
    listed = [str(name) for name in names]
    return ", ".join(listed[:10]) + (f" and {len(listed) - 10} more" if len(listed) > 10 else "")
