"""A folder a key, built once: whoever finds it finds it complete, however many processes start or die meanwhile."""

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout


def cache_root() -> Path:
    """`$SSL_ZOO_CACHE`, else `~/.cache/ssl_zoo`.

    Raises: ValueError when there is no home folder, as for a user whom the system does not know.
    """
    try:
        return Path(os.environ.get("SSL_ZOO_CACHE") or "~/.cache/ssl_zoo").expanduser()
    except RuntimeError as error:
        raise ValueError(
            f"SSL_ZOO_CACHE is not set, and there is no home folder to cache in ({error}). "
            "Set the environment variable SSL_ZOO_CACHE to a folder of yours"
        ) from error


def cached(kind: str, key: dict[str, Any], build: Callable[[Path], None]) -> Path:
    """The complete folder that `build` makes for `key`; built now if no process has built it before.

    `build` fills the empty folder it is given. That folder is a sibling of the final one and takes its name by one
    rename when `build` has returned, so a half-written folder is never seen; what a killed process left is removed by
    the next one. A lock lets one process build while others that want the same folder wait.

    kind: a readable name, the folder one level up, such as "images".
    key: JSON values that determine the content, a format version among them; kept in the folder as `key.json`.

    Raises:
        ValueError: when the cache folder cannot be written or its disk is full.
        Exception: whatever `build` raises; nothing is published then.
    """
    written_key = json.dumps(key, sort_keys=True, indent=1)
    folder = cache_root() / kind / hashlib.sha256(written_key.encode()).hexdigest()[:20]
    if not folder.is_dir():
        with _locked(folder):
            if not folder.is_dir():  # else another process built it while this one waited
                _build(folder, written_key, build)
    return folder


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Holds the lock that belongs to `folder`, waiting for it if need be. It ends with the process that holds it."""
    lock = FileLock(folder.with_suffix(".lock"))
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0.2)
        except Timeout:
            print(f"another process is preparing {folder}; waiting for it", flush=True)
            lock.acquire()
    except OSError as error:
        raise ValueError(
            f"SSL_ZOO_CACHE={cache_root()}: cannot be written ({error.strerror}). "
            "Set the environment variable SSL_ZOO_CACHE to a folder of yours"
        ) from error
    try:
        yield
    finally:
        lock.release()


def _build(folder: Path, written_key: str, build: Callable[[Path], None]) -> None:
    partial = folder.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)  # left by a process that died while it held the lock
    partial.mkdir()
    try:
        build(partial)
        (partial / "key.json").write_text(written_key, encoding="utf-8")
        for path in partial.rglob("*"):
            if path.is_file():
                _flush(path)
        os.rename(partial, folder)
    except BaseException as error:
        shutil.rmtree(partial, ignore_errors=True)
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise ValueError(
                f"SSL_ZOO_CACHE={cache_root()}: the disk is full. Free some room, or set the environment variable "
                "SSL_ZOO_CACHE to a folder on another disk"
            ) from error
        raise


def _flush(path: Path) -> None:
    """Puts the bytes on the disk before the folder's name is: a power cut must not publish empty files."""
    with open(path, "rb+") as file:
        os.fsync(file.fileno())
