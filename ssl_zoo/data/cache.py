"""A folder per key, built once: whoever finds it finds it complete and sound, however many processes start or die."""

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
"""In each folder: the size in bytes and the hash of every other file, as they were when it was built."""
KEY = "key.json"
_sound: dict[Path, list[tuple[str, str, int, int]]] = {}
"""Folders whose hashes this process has checked, with what would show that a file was written since."""


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
    """The complete and sound folder that `build` makes for `key`; built now if no process has built it before.

    `build` fills the empty folder it is given. That folder is a sibling of the final one and takes its name by one
    rename when `build` has returned, so a half-written folder is never seen; what a killed process left is removed by
    the next one. A lock lets one process build while others that want the same folder wait.

    Each process reads the folder once and compares it with the sizes and hashes kept when it was built. One that
    differs, as after a disk error or a copy that broke off, is built again, with a warning. The hash is XXH3, which
    keeps up with memory (10 GB/s): it finds damage, not an attacker, who could write the hashes too.

    kind: a readable name, the folder one level up, such as "images".
    key: JSON values that determine the content, a format version among them; kept in the folder as `key.json`.

    Raises:
        ValueError: when the cache folder cannot be written or its disk is full.
        Exception: whatever `build` raises; nothing is published then.
    """
    written_key = json.dumps(key, sort_keys=True, indent=1)
    folder = cache_root() / kind / hashlib.sha256(written_key.encode()).hexdigest()[:20]
    if wrong(folder) is not None:
        with _locked(folder):
            why = wrong(folder)  # None now if another process built it while this one waited
            if why is not None:
                _build(folder, written_key, build, why)
    return folder


def wrong(folder: Path) -> str | None:
    """What distinguishes the folder from what was built: "" if there is none, None if nothing does."""
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
    """Whatever is there; of a link, the link and nothing that it leads to."""
    if place.is_dir() and not place.is_symlink():
        shutil.rmtree(place)
    else:
        place.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    """Puts the bytes on the disk before the folder's name is: a power cut must not publish empty files."""
    with open(path, "rb+") as file:
        os.fsync(file.fileno())
