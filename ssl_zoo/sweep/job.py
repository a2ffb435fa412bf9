"""One job of a sweep: its process, its output, how it ended and its results.json."""

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
MIN_LOG_BYTES = 1_000_000
"""The log keeps at least this much of the latest output; it is truncated because progress bars write endlessly."""

_COLOUR_CODES = re.compile(rb"\x1b\[[0-9;?]*[A-Za-z]")


def write_to_terminal(data: bytes) -> None:
    """Writes to the terminal of the sweep; a closed terminal does not end the sweep."""
    with contextlib.suppress(OSError):
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()


def print_line(line: str) -> None:
    """Prints a line in one piece, even while jobs print."""
    write_to_terminal(f"{line}\n".encode())


@dataclass(eq=False)
class Job:
    """Runs `command` in a new process group, so that `kill` reaches all processes it starts.

    Each call of `copy` passes stdout and stderr on to the terminal and to `<folder>/output.log`. The job has no input.
    With a `prefix`, for parallel jobs, complete lines are printed, each after the prefix. Without one, bytes are passed
    on unchanged, through a pseudo-terminal if stdout is a terminal, so that progress bars work.

    Attributes:
        title: name of the job in messages.
        folder: the run folder.
        command: the command line.
        known: keys of results.json in case the job does not write the file.
        prefix: printed before each line.
        process: the process, once started.
        started: start time in seconds of the monotonic clock, 0 before the start.
        stop_reason: why the sweep stopped the job, None if it did not.
        kill_at: time at which a stopped job is killed.
        has_output: whether more output may follow.
        record: the results, once the job has ended.
        is_written: whether results.json in the folder equals `record`.
    """

    title: str
    folder: Path
    command: list[str]
    known: dict[str, Any] = field(default_factory=dict)
    prefix: str = ""

    process: subprocess.Popen[bytes] = field(init=False)
    started: float = 0.0
    stop_reason: str | None = None
    kill_at: float = float("inf")
    has_output: bool = True
    record: dict[str, Any] | None = None
    is_written: bool = True
    _output: int = field(init=False)
    _log: BinaryIO | None = None
    _before: tuple[int, int] | None = None  # stamp of the results.json of an earlier attempt
    _tail: bytes = b""  # the latest output
    _line: bytes = b""  # a partial line, kept until its end arrives

    def start(self, environment: dict[str, str]) -> bool:
        """Starts the process; returns False, with the reason in `record`, if the folder or the system refuses it."""
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
        """File descriptor of the job's output, for `select`."""
        return self._output

    def copy(self) -> None:
        """Passes on the output written since the last call, without blocking."""
        try:
            data = os.read(self._output, 65536)
        except BlockingIOError:
            return
        except OSError:  # on Linux: the other side of the pseudo-terminal is closed
            data = b""
        self.has_output = bool(data)
        self._tail = (self._tail + data)[-10_000:]
        self._append_to_log(data)
        if self.prefix:
            *lines, self._line = (self._line + data).split(b"\n")
            data = b"".join(self.prefix.encode() + line.rsplit(b"\r", 1)[-1] + b"\n" for line in lines)
        write_to_terminal(data)

    def _append_to_log(self, data: bytes) -> None:
        """Appends to the log. If the disk refuses it, only the log ends, not the job or the sweep."""
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
            print_line(f"{self.title}  {self.folder / OUTPUT_LOG} is no longer written: {error}")
            self._close_log()

    def _close_log(self) -> None:
        if self._log is not None:
            with contextlib.suppress(OSError):  # its buffer cannot be written
                self._log.close()
        self._log = None

    def stop(self, number: int, reason: str, grace: float) -> None:
        """Asks the job to stop by a signal to its first process; it may be killed after `grace` seconds."""
        self.stop_reason = reason
        self.kill_at = time.monotonic() + grace
        self.process.send_signal(number)

    def kill(self) -> None:
        """Kills the job and the processes it started."""
        with contextlib.suppress(ProcessLookupError, PermissionError):  # no process left, or only zombies on macOS
            os.killpg(self.process.pid, signal.SIGKILL)

    def finish(self, interrupted: bool = False) -> str:
        """Cleans up after the process has ended, writes results.json if needed and returns the final status."""
        self.kill()  # processes that it left running
        for _ in range(100):  # a process that started another session may write endlessly
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
        """Records the end of a job that could not do so itself.

        Existing results next to checkpoints belong to an earlier attempt that can be resumed, and are not replaced.
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
        """Identifies the current results.json: every write creates a new file."""
        try:
            status = (self.folder / results.RESULTS_NAME).stat()
        except OSError:
            return None
        return status.st_ino, status.st_mtime_ns

    def read_results(self) -> dict[str, Any] | None:
        """Returns the results in the folder, None if there are no readable ones."""
        try:
            return results.read_results(self.folder)
        except (OSError, ValueError):
            return None

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

    def _error(self) -> dict[str, str]:
        if self.stop_reason or self.process.returncode < 0:
            return {"type": self.ending, "message": self.ending}
        return {"type": self.ending, "message": f"{self.ending}: {self._last_line() or 'no results.json'}"}

    def _last_line(self) -> str:
        """Returns the last line of output: the exception, if a Python process failed."""
        lines = re.split(r"[\r\n]+", _COLOUR_CODES.sub(b"", self._tail).decode(errors="replace"))
        printed = [line.strip() for line in lines if line.strip() and "HYDRA_FULL_ERROR=1" not in line]
        return printed[-1] if printed else ""


def _terminal() -> tuple[int, int]:
    """Opens a pseudo-terminal of the same size as stdout; returns our end and the job's end."""
    own_end, child_end = pty.openpty()
    termios.tcsetwinsize(child_end, termios.tcgetwinsize(sys.stdout.fileno()))
    attributes = termios.tcgetattr(child_end)
    attributes[1] &= ~termios.OPOST  # otherwise \n would become \r\n
    termios.tcsetattr(child_end, termios.TCSANOW, attributes)
    return own_end, child_end
