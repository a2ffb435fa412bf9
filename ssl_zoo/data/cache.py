"""Content-addressed cache: each key's folder is built once and published atomically, also with concurrent processes.

A process that is killed while it builds leaves nothing that a later one would take for complete.
"""

import errno
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import xxhash
from filelock import FileLock, Timeout

log = logging.getLogger(__name__)

SUMS = "sums.json"
"""In each folder, the size in bytes and the hash of every other file at the time it was built."""
KEY = "key.json"
_sound: dict[Path, list[tuple[str, str, int, int]]] = {}
"""Folders whose hashes this process has checked, with the state of their files (inode, time) at that moment."""


def cache_root() -> Path:
    """The folder of the cache: `$SSL_ZOO_CACHE`, else `~/.cache/ssl_zoo`.

    Raises:
        ValueError: when there is no home folder, as for a user whom the system does not know.
    """
    try:
        return Path(os.environ.get("SSL_ZOO_CACHE") or "~/.cache/ssl_zoo").expanduser()
    except RuntimeError as error:
        raise ValueError(
            f"SSL_ZOO_CACHE is not set, and there is no home folder to cache in ({error}). "
            "Set the environment variable SSL_ZOO_CACHE to a folder of yours"
        ) from error


def cached(kind: str, key: dict[str, Any], build: Callable[[Path], None]) -> Path:
    """The complete and verified folder for `key`, built now if no process has built it before.

    `build` fills an empty folder beside the final one, which is renamed when `build` has returned, so that incomplete
    folders are never visible; what a killed process left is removed by the next one. A lock lets one process build
    while others that want the same folder wait.

    Each process reads the folder once and compares it with the sizes and hashes of the time when it was built. If it
    differs, as after a disk error or an incomplete copy, it is built again, with a warning. The hash is XXH3, which is
    as fast as memory (10 GB/s): it detects damage, but not an attacker, who could write the hashes too.

    Args:
        kind: a readable name, such as "images", of the folder one level up.
        key: JSON values that determine the content, including a format version; also written to `key.json`.
        build: fills the empty folder that it is given.

    Raises:
        ValueError: when the cache folder cannot be written or its disk is full.
        Exception: whatever `build` raises; nothing is published then.
    """
    written_key = json.dumps(key, sort_keys=True, indent=1)
    folder = cache_root() / kind / hashlib.sha256(written_key.encode()).hexdigest()[:20]
    if find_damage(folder) is not None:
        with _locked(folder):
            why = find_damage(folder)  # None now if another process built it while this one waited
            if why is not None:
                _build(folder, written_key, build, why)
    return folder


def find_damage(folder: Path) -> str | None:
    """How the folder differs from what was built: None if it does not, "" if it does not exist."""
    if not folder.is_dir():
        return ""
    try:
        sums = json.loads((folder / SUMS).read_text(encoding="utf-8"))
        if KEY not in sums:
            return f"{SUMS} does not name all files"
        state = []
        for name, (size, digest) in sums.items():
            about = (folder / name).stat()
            if about.st_size != size:
                return f"{name} has {about.st_size:,} bytes, not {size:,}"
            state.append((name, digest, about.st_ino, about.st_mtime_ns))
        if _sound.get(folder) != state:
            for name, (_, digest) in sums.items():
                if _digest(folder / name) != digest:
                    return f"the content of {name} has changed"
            _sound[folder] = state
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing"
    except (OSError, ValueError, TypeError, AttributeError) as error:
        return f"it cannot be read ({error})"
    return None


def _digest(path: Path) -> str:
    digest, block = xxhash.xxh3_128(), memoryview(bytearray(2**22))
    with open(path, "rb", buffering=0) as file:
        while count := file.readinto(block):
            digest.update(block[:count])
    return digest.hexdigest()


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Holds the lock that belongs to `folder`, waiting for it if need be; it is released if the process dies."""
    lock = FileLock(folder.with_suffix(".lock"))
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0.2)
        except Timeout:
            log.info("another process is preparing %s; waiting for it", folder)
            lock.acquire()
    except OSError as error:
        raise _unwritable(error) from error
    try:
        yield
    finally:
        lock.release()


def _unwritable(error: OSError) -> ValueError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return ValueError(
            f"SSL_ZOO_CACHE={cache_root()}: the disk is full. Free some room, or set the environment variable "
            "SSL_ZOO_CACHE to a folder on another disk"
        )
    return ValueError(
        f"SSL_ZOO_CACHE={cache_root()}: cannot be written ({error.filename}: {error.strerror}). "
        "Set the environment variable SSL_ZOO_CACHE to a folder of yours"
    )


def _build(folder: Path, written_key: str, build: Callable[[Path], None], why: str) -> None:
    partial = folder.with_suffix(".partial")
    try:
        _remove(partial)  # left by a process that died while it held the lock
        partial.mkdir()
        if why:
            log.warning("%s in the cache is damaged: %s. It is built again", folder, why)
        _remove(folder)
    except OSError as error:
        raise _unwritable(error) from error
    try:
        build(partial)
        (partial / KEY).write_text(written_key, encoding="utf-8")
        paths = sorted(path for path in partial.rglob("*") if path.is_file())
        sums = {str(path.relative_to(partial)): (path.stat().st_size, _digest(path)) for path in paths}
        (partial / SUMS).write_text(json.dumps(sums, indent=1), encoding="utf-8")
        for path in (*paths, partial / SUMS):
            _flush(path)
        os.rename(partial, folder)
    except BaseException as error:
        shutil.rmtree(partial, ignore_errors=True)
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _unwritable(error) from error
        raise


def _remove(place: Path) -> None:
    """Removes a file, a folder, or a link but not its target."""
    if place.is_dir() and not place.is_symlink():
        shutil.rmtree(place)
    else:
        place.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    """Writes the bytes to the disk before the folder is renamed: a power cut must not publish empty files."""
    with open(path, "rb+") as file:
        os.fsync(file.fileno())
