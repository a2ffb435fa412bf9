"""One job of a sweep: its process, its output, how it ended and its results.json."""

import contextlib
import ctypes
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from ssl_zoo.files import open_no_follow
from ssl_zoo.report import display, results

OUTPUT_LOG = "output.log"
MIN_LOG_BYTES = 1_000_000
"""The log keeps at least this much of the latest output; it is shortened when it reaches twice this size."""


def write_to_terminal(data: bytes) -> None:
    """Writes to the terminal of the sweep; a closed terminal does not end the sweep."""
    with contextlib.suppress(OSError):
        sys.stdout.flush()
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()


def print_line(line: str) -> None:
    """Prints a line in one piece, even while jobs print."""
    write_to_terminal(f"{line}\n".encode())


@dataclass(eq=False)
class Job:
    """Runs `command` in a new session, with stdout and stderr in `<folder>/output.log` and without input.

    Attributes:
        title: name of the job in messages.
        folder: the run folder.
        command: the command line.
        known: keys of results.json in case the job does not write the file.
        number: its number in the sweep, from 0.
        objective: the metric that the sweep looks for, if any.
        prefix: printed before each line of a parallel job; without one, output is passed on unchanged.
        process: the process, once started.
        started: start time in seconds of the monotonic clock, 0 before the start.
        stop_reason: why the sweep stopped the job, None if it did not.
        kill_at: time at which a stopped job is killed.
        status: "not started", or the final status.
        record: the results, once the job has ended.
        is_written: whether results.json in the folder equals `record`.
    """

    title: str
    folder: Path
    command: list[str]
    known: dict[str, Any] = field(default_factory=dict)
    number: int = 0
    objective: str | None = None
    prefix: str = ""

    process: subprocess.Popen[bytes] = field(init=False)
    started: float = 0.0
    stop_reason: str | None = None
    kill_at: float = float("inf")
    status: str = "not started"
    record: dict[str, Any] | None = None
    is_written: bool = True
    _log: BinaryIO | None = None  # the process writes to it, and we read
    _position: int = 0  # up to which the log has been read
    _tail: bytes = b""  # the latest output
    _line: bytes = b""  # a partial line, kept until its end arrives
    _before: tuple[int, int] | None = None  # stamp of the results.json of an earlier attempt

    def start(self, environment: dict[str, str]) -> bool:
        """Starts the process; returns False, with the reason in `record`, if the folder or the system refuses it."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._before = self._stamp()
            self._log = open(self.folder / OUTPUT_LOG, "ab+", buffering=0, opener=open_no_follow)  # noqa: SIM115
            self._log.write(f"$ {shlex.join(self.command)}\n".encode())
            self._position = self._log.tell()
            self.process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
                preexec_fn=_stop_with_parent,
            )
        except OSError as error:
            if self._log is not None:
                self._log.close()
            self._conclude("failed", {"type": type(error).__name__, "message": f"the job could not start: {error}"})
            return False
        self.started = time.monotonic()
        return True

    def follow(self) -> None:
        """Copies the output written since the last call to the terminal, and shortens a long log."""
        assert self._log is not None
        file = self._log.fileno()
        with contextlib.suppress(OSError):  # such as a network disk that is gone: the job may still end well
            data = os.pread(file, 2 * MIN_LOG_BYTES, self._position)
            self._position += len(data)
            self._tail = (self._tail + data)[-10_000:]
            if self.prefix:
                *lines, self._line = (self._line + data).split(b"\n")
                data = b"".join(self.prefix.encode() + line.rsplit(b"\r", 1)[-1] + b"\n" for line in lines)
            write_to_terminal(data)
            removed = os.fstat(file).st_size - MIN_LOG_BYTES
            if removed > MIN_LOG_BYTES:
                end = os.pread(file, 2 * MIN_LOG_BYTES, removed)
                os.truncate(file, 0)  # the job appends, so what it writes from now on goes to the new end
                self._position = max(0, self._position - removed)
                os.write(file, end)

    def stop(self, number: int, reason: str, grace: float) -> None:
        """Asks the job to stop by a signal to its first process; it may be killed after `grace` seconds."""
        self.stop_reason = reason
        self.kill_at = time.monotonic() + grace
        self.process.send_signal(number)

    def kill(self) -> None:
        """Kills the job and the processes it started."""
        with contextlib.suppress(ProcessLookupError, PermissionError):  # no process left, or only zombies on macOS
            os.killpg(self.process.pid, signal.SIGKILL)

    def finish(self, interrupted: bool = False) -> None:
        """Cleans up after the process has ended, writes results.json if needed and sets the final status."""
        self.kill()  # processes that it left running
        for _ in range(2):  # the first may only shorten the log
            self.follow()
        with contextlib.suppress(OSError, ValueError):
            self.record = results.read_results(self.folder) if self._stamp() != self._before else None
        self.status = self.record["status"] if self.record else "running"
        if self.status == "running" or (self.status != "completed" and self.stop_reason):
            is_explained = self.stop_reason or self.process.returncode < 0
            message = self.ending if is_explained else f"{self.ending}: {self._last_line() or 'no results.json'}"
            self._conclude("interrupted" if interrupted else "failed", {"type": self.ending, "message": message})
        assert self._log is not None
        self._log.close()

    def _conclude(self, status: str, error: dict[str, str]) -> None:
        """Records the end of a job that could not do so itself.

        Existing results next to checkpoints belong to an earlier attempt that can be resumed, and are not replaced.
        """
        is_of_this_attempt = self.record is not None
        known = self.record or results.empty_results(status, **self.known)
        self.status = status
        self.record = {**known, "status": status, "error": error}
        try:
            has_weights = any((self.folder / "checkpoints").glob("step-*.ckpt"))
            self.is_written = is_of_this_attempt or self._before is None or not has_weights
            if self.is_written:
                results.write_results(self.folder, self.record)
        except OSError as refused:
            self.is_written = False
            print_line(f"{self.title}  {self.folder / results.RESULTS_NAME} cannot be written: {refused}")

    def _stamp(self) -> tuple[int, int] | None:
        """Identifies the current results.json: every write creates a new file."""
        try:
            status = (self.folder / results.RESULTS_NAME).stat()
        except OSError:
            return None
        return status.st_ino, status.st_mtime_ns

    def outcome(self) -> str:
        """Returns in one line how the job ended: its time, or why it did not complete and where to read more."""
        if self.status == "completed":
            after_all = "" if self.process.returncode == 0 else f" ({self.ending} after that)"
            return f"{self.title}  completed in {time.monotonic() - self.started:.0f} s{after_all}  {self.folder}"
        return f"{self.title}  {self.status}: {self.reason()}  {self.folder / OUTPUT_LOG}"

    def reason(self) -> str:
        """Returns in one line why the job did not complete: the error in its results and how its process ended."""
        error = (self.record or {}).get("error", {"type": "", "message": ""})
        message = (error["message"].strip().splitlines() or [""])[0]
        if self.ending in message:
            return message
        return f"{error['type']}: {message} ({self.ending})" if message else self.ending

    @property
    def ending(self) -> str:
        """How the process ended: "exit code 3", "killed by SIGKILL", "timed out after 5 min"."""
        if not self.started:
            return "not started"
        code = self.process.returncode
        return self.stop_reason or (f"exit code {code}" if code >= 0 else f"killed by {signal.Signals(-code).name}")

    def _last_line(self) -> str:
        """Returns the last line of output: the exception, if a Python process failed."""
        lines = map(display.to_plain_text, re.split(r"[\r\n]+", self._tail.decode(errors="replace")))
        printed = [line for line in lines if line and "HYDRA_FULL_ERROR=1" not in line]
        return str(printed[-1]) if printed else ""


def _stop_with_parent() -> None:
    """Has the system send SIGTERM to this process when the launcher dies, even if it is killed (on Linux only)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
