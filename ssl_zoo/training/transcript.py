"""Copies stdout and stderr of a run, line by line, to `run.log` in the run folder."""

import errno
import logging
import os
import re
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from ssl_zoo.files import open_no_follow
from ssl_zoo.training.credentials import masked_text

LOG_NAME = "run.log"
_TERMINAL_ESCAPES = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b.")
_active: list["_RecordedStream"] = []


class _Lines:
    """Destination of the recorded lines: memory, until a file is opened."""

    def __init__(self) -> None:
        self.early: list[bytes] = []
        self.file: int | None = None

    def add(self, line: bytes) -> None:
        if self.file is None:
            self.early.append(line)
            return
        with suppress(OSError):  # a full disk; the line is still on the terminal
            os.write(self.file, line)

    def open(self, path: Path) -> None:
        self.file = open_no_follow(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        self.add(b"".join(self.early))
        self.early = []


def start_transcript() -> None:
    """Starts recording printed and logged lines in memory for `write_transcript`; no effect if already started."""
    if _active:
        return
    lines = _Lines()
    _active.extend([_RecordedStream(sys.stdout, lines), _RecordedStream(sys.stderr, lines)])
    _redirect(dict(zip((sys.stdout, sys.stderr), _active, strict=True)))
    sys.stdout, sys.stderr = _active


def write_transcript(folder: Path) -> None:
    """Appends the recorded lines, and all later ones, to `run.log` in `folder`; no effect when called again.

    A log file that cannot be opened or written does not end the run. Symbolic links are not followed.
    """
    start_transcript()
    if _active[0].lines.file is None:
        with suppress(OSError):
            _active[0].lines.open(folder / LOG_NAME)


def stop_transcript() -> None:
    """Restores stdout and stderr."""
    if not _active:
        return
    _redirect({copied: copied.stream for copied in _active})
    sys.stdout, sys.stderr = (copied.stream for copied in _active)
    for copied in _active:
        copied.finish()
    if (file := _active[0].lines.file) is not None:
        os.close(file)
    _active.clear()


def _redirect(instead: dict[Any, Any]) -> None:
    """Redirects the root logger's handlers from each stream in `instead` to the stream it is mapped to."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.StreamHandler) and handler.stream in instead:
            handler.setStream(instead[handler.stream])


class _RecordedStream:
    """A text stream that also copies complete lines to `lines`, without colours.

    Of a line that is overwritten repeatedly, such as a progress bar, only the last state is recorded.
    """

    def __init__(self, stream: Any, lines: _Lines):
        self.stream = stream
        self.lines = lines
        self.line = ""
        self.finished = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        try:
            self.stream.write(text)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise  # otherwise stdout is a file on a full disk, which does not end a run; a save that fails may
        if not self.finished:
            *lines, self.line = (self.line + text).split("\n")
            self.line = self.line.rpartition("\r")[2] or self.line  # drop overwritten text
            for line in lines:
                self._keep(line)
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def finish(self) -> None:
        """Records a partial last line. Later writes go to the original stream only."""
        if self.line:
            self._keep(self.line)
        self.line = ""
        self.finished = True

    def _keep(self, line: str) -> None:
        text = masked_text(_TERMINAL_ESCAPES.sub("", line.rstrip("\r").rpartition("\r")[2]))
        self.lines.add(f"{text}\n".encode(errors="backslashreplace"))
