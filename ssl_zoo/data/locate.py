"""Finds data: from the path in the configuration to an existing place, its tables and its fingerprint."""

import hashlib
import os
import re
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssl_zoo.data.layout import Layout, Walk, ending

if TYPE_CHECKING:
    from datasets import DatasetDict

HASHED_BYTES = 2**30
"""Files up to this total size are fingerprinted by their content, larger ones by size and time."""


FILE_KINDS = {".parquet": "parquet", ".arrow": "arrow", ".tar": "webdataset"}
"""Endings of the files that are read by the `datasets` library, and its names for their kinds."""


def as_path(value: object) -> str:
    """The text of data.path, which the command line parses as a number for a folder called 2024.

    Raises:
        ValueError: for a value whose original text cannot be restored.
    """
    if type(value) is int:
        return str(value)
    if not isinstance(value, str):
        raise ValueError(
            f"data.path={'null' if value is None else value}: give the path of a file or folder, or a hub id; a name "
            "that looks like another value goes in two pairs of quotes: 'data.path=\"1e5\"'"
        )
    return value


def locate(path: str, root: str | None = None) -> Path | str:
    """The file or folder that `path` names, else `path` itself if it can be the id of a data set on the Hub.

    A local copy takes precedence over the Hub: `path`, and then its last component ("cifar10" of "uoft-cs/cifar10"), is
    also searched for below `root` and below `$SSL_ZOO_DATA`.

    Raises:
        ValueError: when it is neither.
    """
    given = Path(path)
    if path.startswith("~") and not given.exists():
        try:
            given = given.expanduser()
        except RuntimeError as error:
            raise ValueError(f"data.path={path}: no such folder, and no home of such a user ({error})") from error
    if given.is_file() or given.is_dir():
        return given
    if given.exists():
        raise ValueError(f"data.path={path}: neither a file nor a folder (a pipe, a device). Give one of the two")
    if not given.is_absolute():
        for base in filter(None, (root, os.environ.get("SSL_ZOO_DATA"))):
            for name in (path, given.name):
                if name and (local := Path(base).expanduser() / name).exists():
                    return local
    if re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", path):
        return path
    raise ValueError(f"data.path={path}: no such file or folder. Give one that exists, or a hub id (owner/name)")


def data_files(place: Path) -> dict[str, list[str]] | None:
    """The parquet, arrow or tar files of each split of a folder, or of a single file, by our rules for split names.

    None where the folder has a data card with `configs` or contains no such files; then `datasets` decides.
    """
    if place.is_file():
        return {"train": [str(place)]}
    layout = data_layout(place)
    if layout is None:
        return None
    return {split: [str(path) for path in paths] for split, paths in layout.splits.items() if paths}


def data_layout(folder: Path) -> Layout | None:
    """The layout of the parquet, arrow or tar files of a folder; None as in `data_files`."""
    if has_card(folder):
        return None
    walk = Walk(folder)
    kind = next((kind for kind in FILE_KINDS if any(ending(path) == kind for path in walk.files)), None)
    return Layout(walk, {kind}, "tables") if kind else None


def has_card(folder: Path) -> bool:
    """Whether a folder has a data card, as on the Hub, that says how it is read."""
    card = folder / "README.md"
    return card.is_file() and bool(re.search(r"^(configs|dataset_info):", card.read_text("utf-8", "replace"), re.M))


def load_tables(place: Path | str) -> "DatasetDict":
    """All splits of a Hub data set, of a local folder in the Hub's layout or of a parquet file, memory-mapped.

    Raises:
        ValueError: when they cannot be read, with the reason.
    """
    import datasets
    import pyarrow.parquet  # type: ignore[import-untyped]  # comes with datasets
    from datasets.exceptions import DatasetsError

    is_file = isinstance(place, Path) and place.is_file()
    if is_file and ending(Path(place)) not in FILE_KINDS:
        raise ValueError(
            f"data.path={place}: a file of this kind is no data set. "
            "Give a folder of images, one of class folders, a table (.parquet, .csv, .tsv, .jsonl), tar shards, or "
            "a hub id (owner/name)"
        )
    try:
        if is_file and ending(Path(place)) == ".parquet":
            pyarrow.parquet.read_schema(place)  # `datasets` logs an error of its own for other files
        files = data_files(place) if isinstance(place, Path) else None
        if files is None:
            return datasets.load_dataset(str(place))
        # Each split separately: they may differ in columns and in the types of labels.
        tables = {split: load_split(datasets, files, split, streaming=False) for split in files}
        return datasets.DatasetDict(tables)
    except (DatasetsError, OSError, ValueError) as error:
        cause = error.__cause__ or error
        if isinstance(place, Path):
            why = f"{error_summary(cause)}. Replace the file" if is_file else cause
            raise ValueError(f"data.path={place}: cannot be read as a data set. {why}") from error
        raise ValueError(
            f"data.path={place}: no such folder here, and the Hub does not give it. {cause}. "
            "Check the id and the network, or put a copy below $SSL_ZOO_DATA"
        ) from error


def load_split(datasets: Any, files: dict[str, list[str]], split: str, streaming: bool) -> Any:
    """One split of `data_files`, through the `datasets` library."""
    kind = FILE_KINDS[ending(Path(files[split][0]))]
    return datasets.load_dataset(kind, data_files={split: files[split]}, split=split, streaming=streaming)


def error_summary(error: BaseException) -> str:
    """The first line of the message, without the full stop; the type of the error if it has no message."""
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")


def fingerprint(files: Iterable[Path], base: Path | None = None) -> str:
    """A hash of the names (below `base`) and contents of all files, or of their sizes and times if they are large.

    For links without a target and named pipes, which cannot be read, only the name counts.
    """
    paths = sorted(files)
    infos = [_info(path) for path in paths]
    by_content = sum(info.st_size for info in infos if info) <= HASHED_BYTES
    total = hashlib.sha256()
    for path, info in zip(paths, infos, strict=True):
        name = path.relative_to(base) if base else path.name
        total.update(f"{name}\0{info.st_size if info else 'none'}\0".encode("utf-8", "surrogateescape"))
        if info and by_content:
            with open(path, "rb") as file:
                total.update(hashlib.file_digest(file, "sha256").digest())
        elif info:
            total.update(str(info.st_mtime_ns).encode())
    return total.hexdigest()


def _info(path: Path) -> os.stat_result | None:
    """Size and times of a regular file, None for anything else."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found if stat.S_ISREG(found.st_mode) else None
