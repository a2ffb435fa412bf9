"""`run.log` holds what was printed: stdout and stderr go on to where they went, and line by line to a file."""

import os
import re
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from ssl_zoo.credentials import masked_text

NAME = "run.log"  # Hydra's logging writes there too
_ESCAPES = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b.")
_active: list["_Copied"] = []


def begin(folder: Path) -> None:
    """From now on lines that are printed are appended to `run.log` in `folder`. No effect while it is at work.

    A log that cannot be opened or written ends no run: what is shown stays shown.
    """
    if _active:
        return
    try:
        # no link is followed: it would lead out of the run folder
        file = os.open(folder / NAME, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
    except OSError:
        return
    _active.extend([_Copied(sys.stdout, file), _Copied(sys.stderr, file)])
    sys.stdout, sys.stderr = _active


def end() -> None:
    """Gives stdout and stderr back."""
    if not _active:
        return
    sys.stdout, sys.stderr = (copied.stream for copied in _active)
    for copied in _active:
        copied.finish()
    os.close(_active[0].file)
    _active.clear()


class _Copied:
    """A text stream whose whole lines also go to `file`, without colours; of a line that is drawn over and over, such
    as a progress bar, what was left of it at its end."""

    def __init__(self, stream: Any, file: int):
        self.stream, self.file = stream, file
        self.line = ""
        self.finished = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        count = self.stream.write(text)
        if not self.finished:
            *lines, self.line = (self.line + text).split("\n")
            self.line = self.line.rpartition("\r")[2] or self.line  # what is drawn over is not kept
            for line in lines:
                self._keep(line)
        return count

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def finish(self) -> None:
        """Keeps a line that was begun. Who still holds this stream writes on to the old one only."""
        if self.line:
            self._keep(self.line)
        self.line, self.finished = "", True

    def _keep(self, line: str) -> None:
        text = masked_text(_ESCAPES.sub("", line.rstrip("\r").rpartition("\r")[2]))
        with suppress(OSError):  # a full disk; the terminal has the line
            os.write(self.file, f"{text}\n".encode(errors="backslashreplace"))
