"""Writes files atomically and never through a symbolic link.

A run folder or a cache may be in a folder that other users can write to. A symbolic link placed there under the name
of a file to be written would redirect the write to a file of their choice.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


def open_no_follow(path: Path | str, flags: int) -> int:
    """Opener for `open` that raises OSError if `path` itself is a symbolic link.

    Parent folders may be links, for example to keep runs on another disk.
    """
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)


@contextmanager
def open_atomically(path: Path | str) -> Iterator[BinaryIO]:
    """Opens a file for writing that appears, or replaces the one there, only when the block ends without an error.

    Readers, also after a crash, see either the old or the new file, never a partial one. A symbolic link is replaced.
    """
    path = Path(path)
    # In the same folder, because os.replace is atomic only within one file system.
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(temporary, "wb", opener=open_no_follow) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_atomically(path: Path | str, content: str | bytes) -> None:
    """Writes or replaces a file as `open_atomically` does; strings are encoded as UTF-8."""
    with open_atomically(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)
