"""Where examples come from: a path in the configuration -> a place that exists, rows of it, a fingerprint of it."""

import hashlib
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datasets import DatasetDict

HASHED_BYTES = 2**30
"""Files that hold no more than this in all are fingerprinted by their content, larger ones by size and time."""


def locate(path: str, root: str | None = None) -> Path | str:
    """The file or folder that `path` names, else `path` itself where it can be the id of a data set on the Hub.

    `path`, and then its last part ("cifar10" of "uoft-cs/cifar10"), is also looked for below `root` and below
    `$SSL_ZOO_DATA`, so that a local copy comes before the Hub.

    Raises:
        ValueError: when it is neither.
    """
    given = Path(path).expanduser()
    if given.exists():
        return given
    if not given.is_absolute():
        for base in filter(None, (root, os.environ.get("SSL_ZOO_DATA"))):
            for name in (path, given.name):
                if name and (local := Path(base).expanduser() / name).exists():
                    return local
    if re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", path):
        return path
    raise ValueError(f"data.path={path}: no such file or folder. Give one that exists, or a hub id (owner/name)")


def load_tables(place: Path | str) -> "DatasetDict":
    """All splits of a hub data set, of a local folder in the Hub's layout or of a parquet file, memory-mapped.

    Raises:
        ValueError: when they cannot be had, with the reason.
    """
    import datasets
    import pyarrow.parquet  # type: ignore[import-untyped]  # comes with datasets
    from datasets.exceptions import DatasetsError

    is_file = isinstance(place, Path) and place.is_file()
    if is_file and Path(place).suffix.lower() != ".parquet":
        raise ValueError(
            f"data.path={place}: a single file has to end in .parquet. "
            "Give a folder of images, one of class folders, a parquet file, or a hub id (owner/name)"
        )
    try:
        if is_file:
            pyarrow.parquet.read_schema(place)  # `datasets` logs an error of its own for what is no parquet file
            return datasets.load_dataset("parquet", data_files=str(place))
        return datasets.load_dataset(str(place))
    except (DatasetsError, OSError, ValueError) as error:
        cause = error.__cause__ or error
        if isinstance(place, Path):
            why = f"{first_line(cause)}. Replace the file" if is_file else cause
            raise ValueError(f"data.path={place}: cannot be read as a data set. {why}") from error
        raise ValueError(
            f"data.path={place}: no such folder here, and the Hub does not give it. {cause}. "
            "Check the id and the network, or put a copy below $SSL_ZOO_DATA"
        ) from error


def first_line(error: BaseException) -> str:
    """What it says in its first line, without the full stop; its type where it says nothing."""
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")


def fingerprint(files: Iterable[Path], base: Path | None = None) -> str:
    """Changes when a file does: a hash of the names (below `base`) and contents, or sizes and times, of all files."""
    paths = sorted(files)
    stats = [path.stat() for path in paths]
    by_content = sum(stat.st_size for stat in stats) <= HASHED_BYTES
    total = hashlib.sha256()
    for path, stat in zip(paths, stats, strict=True):
        name = path.relative_to(base) if base else path.name
        total.update(f"{name}\0{stat.st_size}\0".encode("utf-8", "surrogateescape"))
        if by_content:
            with open(path, "rb") as file:
                total.update(hashlib.file_digest(file, "sha256").digest())
        else:
            total.update(str(stat.st_mtime_ns).encode())
    return total.hexdigest()


def visible_files(folder: Path) -> list[Path]:
    """All files below `folder`, sorted, without hidden ones (`._a.jpg`, `.DS_Store`, anything in `.git`)."""
    found = []
    for parent, folders, names in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not is_hidden(name))
        found += [Path(parent, name) for name in sorted(names) if not is_hidden(name)]
    return found


def is_hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"
