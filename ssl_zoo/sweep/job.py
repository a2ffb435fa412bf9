"""One job of a sweep: a process with a session of its own, its output, its end and its results.json."""

import contextlib
import os
import pty
import re
import select
import shlex
import signal
import subprocess
import sys
import termios
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from ssl_zoo.files import open_no_follow
from ssl_zoo.report import results

OUTPUT_LOG = "output.log"
MIN_LOG_BYTES = 1_000_000  # at least this much of the last output is kept: a progress bar writes for ever

_COLOUR_CODES = re.compile(rb"\x1b\[[0-9;?]*[A-Za-z]")


def write_to_terminal(data: bytes) -> None:
    """Write to our own terminal. One that has gone away does not end a sweep."""
    with contextlib.suppress(OSError):
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()


def print_line(line: str) -> None:
    """Prints a line whole, also while jobs print."""
    write_to_terminal(f"{line}\n".encode())


@dataclass(eq=False)
class Job:
    """`command` in a process group of its own, so that `kill` reaches all it has started.

    Its stdout and stderr go to the terminal and to `<folder>/output.log` as `copy` is called. It has no input. With a
    `prefix`, for several jobs at once, whole lines go to the terminal, each with the prefix before it; without one the
    bytes go as they are, through a terminal if we have one, so that a progress bar lives.
    """

    title: str
    folder: Path
    command: list[str]
    known: dict[str, Any] = field(default_factory=dict)  # what results.json says if the job leaves none
    prefix: str = ""

    process: subprocess.Popen[bytes] = field(init=False)
    started: float = 0.0  # seconds on the monotonic clock
    stop_reason: str | None = None
    kill_at: float = float("inf")
    has_output: bool = True  # whether more may come
    record: dict[str, Any] | None = None  # how it ended, once it has
    is_written: bool = True  # whether `record` is what the results.json in its folder says
    _output: int = field(init=False)
    _log: BinaryIO | None = None
    _before: tuple[int, int] | None = None  # tells a results.json of an earlier attempt
    _tail: bytes = b""
    _line: bytes = b""  # the beginning of a line, held until its end comes

    def start(self, environment: dict[str, str]) -> bool:
        """Starts the process; returns False, with `record` saying why, where the folder or the system refuses it."""
        try:
            self._begin(environment)
        except OSError as error:
            if self._log is not None:
                self._log.close()
            self._conclude("failed", {"type": type(error).__name__, "message": f"the job could not start: {error}"})
            return False
        return True

    def _begin(self, environment: dict[str, str]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._before = self._stamp()
        self._log = open(self.folder / OUTPUT_LOG, "ab+", opener=open_no_follow)  # noqa: SIM115 - closed in `finish`
        self._log.write(f"$ {shlex.join(self.command)}\n".encode())
        self._log.flush()
        self._output, child_end = os.pipe() if self.prefix or not sys.stdout.isatty() else _terminal()
        os.set_blocking(self._output, False)
        try:
            self.process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=child_end,
                stderr=child_end,
                env=environment,
                start_new_session=True,
            )
        except OSError:
            os.close(self._output)
            raise
        finally:
            os.close(child_end)
        self.started = time.monotonic()

    def fileno(self) -> int:
        """The job's output, by which `select` waits for it."""
        return self._output

    def copy(self) -> None:
        """Pass on what the job has written since; do not wait for any."""
        try:
            data = os.read(self._output, 65536)
        except BlockingIOError:
            return
        except OSError:  # how Linux says that the other side of a terminal is closed
            data = b""
        self.has_output = bool(data)
        self._tail = (self._tail + data)[-10_000:]
        self._keep(data)
        if self.prefix:
            *lines, self._line = (self._line + data).split(b"\n")
            data = b"".join(self.prefix.encode() + line.rsplit(b"\r", 1)[-1] + b"\n" for line in lines)
        write_to_terminal(data)

    def _keep(self, data: bytes) -> None:
        """Adds to the log. A disk that refuses it ends the log, no job and no sweep."""
        if self._log is None:
            return
        try:
            self._log.write(data)
            self._log.flush()
            if self._log.tell() > 2 * MIN_LOG_BYTES:
                self._log.seek(-MIN_LOG_BYTES, os.SEEK_END)
                end = self._log.read()
                self._log.truncate(0)
                self._log.write(end)
        except OSError as error:
            print_line(f"{self.title}  {self.folder / OUTPUT_LOG} is not written on: {error}")
            self._close_log()

    def _close_log(self) -> None:
        if self._log is not None:
            with contextlib.suppress(OSError):  # what it still holds cannot be written
                self._log.close()
        self._log = None

    def stop(self, number: int, reason: str, grace: float) -> None:
        """Ask the job to stop, by a signal to its first process; it is time to kill it in `grace` seconds."""
        self.stop_reason = reason
        self.kill_at = time.monotonic() + grace
        self.process.send_signal(number)

    def kill(self) -> None:
        """Kills the job and the processes that it started."""
        with contextlib.suppress(ProcessLookupError, PermissionError):  # nobody left; on macOS only zombies
            os.killpg(self.process.pid, signal.SIGKILL)

    def finish(self, interrupted: bool = False) -> str:
        """Clear up once the process has ended, see to its results.json and return the status of its `record`."""
        self.kill()  # what it left running
        for _ in range(100):  # a process that escaped to another session may write for ever
            if not self.has_output or not select.select([self], [], [], 0)[0]:
                break
            self.copy()
        self._close_log()
        os.close(self._output)
        self.record = self.read_results() if self._stamp() != self._before else None
        status = self.record["status"] if self.record else "running"
        if status == "running" or (status != "completed" and self.stop_reason):
            self._conclude("interrupted" if interrupted else "failed", self._error())
        assert self.record is not None
        return str(self.record["status"])

    def _conclude(self, status: str, error: dict[str, str]) -> None:
        """Records what the job could not record itself.

        Results beside checkpoints are those of an earlier attempt, which can still go on: they stay as they are.
        """
        is_of_this_attempt = self.record is not None
        known = self.record or results.empty_results(status, **self.known)
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
        """Tells one results.json from the next: each is a new file."""
        try:
            about = (self.folder / results.RESULTS_NAME).stat()
        except OSError:
            return None
        return about.st_ino, about.st_mtime_ns

    def read_results(self) -> dict[str, Any] | None:
        """What its folder says, None if nothing that can be used."""
        try:
            return results.read_results(self.folder)
        except (OSError, ValueError):
            return None

    def reason(self) -> str:
        """Why the job did not complete, in one line: what its results say, and how its process ended."""
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

    def _error(self) -> dict[str, str]:
        if self.stop_reason or self.process.returncode < 0:
            return {"type": self.ending, "message": self.ending}
        return {"type": self.ending, "message": f"{self.ending}: {self._last_line() or 'no results.json'}"}

    def _last_line(self) -> str:
        """What the job wrote last: when a Python process fails, its exception."""
        lines = re.split(r"[\r\n]+", _COLOUR_CODES.sub(b"", self._tail).decode(errors="replace"))
        said = [line.strip() for line in lines if line.strip() and "HYDRA_FULL_ERROR=1" not in line]
        return said[-1] if said else ""


def _terminal() -> tuple[int, int]:
    """A terminal as wide as ours: the side we read, and the side a job writes."""
    own_end, child_end = pty.openpty()
    termios.tcsetwinsize(child_end, termios.tcgetwinsize(sys.stdout.fileno()))
    attributes = termios.tcgetattr(child_end)
    attributes[1] &= ~termios.OPOST  # or \n would become \r\n, in the log too
    termios.tcsetattr(child_end, termios.TCSANOW, attributes)
    return own_end, child_end
