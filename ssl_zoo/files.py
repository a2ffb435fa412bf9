"""Files that are written whole, and never through a link that lies in their place.

A run folder or a cache may be in a folder that others write to. A link there, named as a file that we are about to
write, would lead the writing to a file of its maker's choice.
"""

import os
from pathlib import Path


def open_no_follow(path: Path | str, flags: int) -> int:
    """`open(path, mode, opener=no_link)`: raises OSError where `path` itself is a symbolic link.

    Folders on the way may be links: people keep their runs on another disk so.
    """
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)


def write_atomically(path: Path | str, content: str | bytes) -> None:
    """Writes a file, or puts a new one in its place, atomically; text as UTF-8.

    A reader, or a crash at any moment, sees the old file or the new one, never half of either. A link is replaced.
    """
    path = Path(path)
    # In the same folder, for os.replace is atomic within one file system only.
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(temporary, "wb", opener=open_no_follow) as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
