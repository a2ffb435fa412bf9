"""Clean stops on signals from users, terminals and schedulers, from the start of a process."""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

STOP_SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU"))
"""Sent by users (Ctrl-C), closing terminals, and schedulers before they reclaim a machine."""

Handler = Callable[[int, FrameType | None], Any]


class Interrupted(SystemExit):
    """The process stops because of a signal, with exit code 128 + signal, as in shells.

    Attributes:
        signal: the signal.
        checkpoint: the file to resume from, None if unknown.
    """

    def __init__(self, number: int, checkpoint: Path | None = None):
        super().__init__(128 + number)
        self.signal = signal.Signals(number)
        self.checkpoint = checkpoint


def write_message(line: str) -> None:
    """Writes to stderr from a signal handler, where `print` is not reentrant and the terminal may be gone."""
    with contextlib.suppress(OSError):
        os.write(2, f"{line}\n".encode())


def _install_handler(handler: Handler) -> dict[signal.Signals, Any]:
    """Installs `handler` for the stop signals, except those that are ignored (nohup). Returns the previous handlers."""
    active = [number for number in STOP_SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    return {number: signal.signal(number, handler) for number in active}


def _is_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()  # only it may set handlers


def ignore_stop_signals() -> None:
    """Ignores further stop signals, except Ctrl-C, while the end of a run is recorded."""
    for number in STOP_SIGNALS if _is_main_thread() else ():
        if number != signal.SIGINT:
            signal.signal(number, signal.SIG_IGN)


@contextmanager
def stop_immediately() -> Iterator[None]:
    """Context manager for code that has nothing to save: a stop signal prints a message and raises `Interrupted`."""
    owner = os.getpid()

    def leave(number: int, frame: FrameType | None) -> None:
        if os.getpid() != owner:  # forked children inherit the handler but should end normally
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        write_message(
            f"{signal.Signals(number).name}: no training is in progress, so there is nothing to save; stopping. "
            "The same command goes on from what is in its run folder"
        )
        raise Interrupted(number)

    replaced = _install_handler(leave) if _is_main_thread() else {}
    try:
        yield
    finally:
        for number, handler in replaced.items():
            signal.signal(number, handler)


class StopSignals:
    """Records stop signals for the training loop, which checks `received` between steps.

    A second Ctrl-C raises `Interrupted` immediately.

    Lightning installs its own handlers when training starts; they communicate with other processes inside the handler
    and then exit with 0 and without a checkpoint. Call `listen` after that to replace them until `release`.

    Attributes:
        received: the first signal received, 0 for none.
    """

    def __init__(self) -> None:
        self.received = 0
        self._was_interrupted = False
        self._mask: set[int | signal.Signals] | None = None
        self._replaced: dict[signal.Signals, Any] = {}
        self._owner = os.getpid()

    def hold(self) -> None:
        """Blocks the signals while the data loader starts.

        Its workers inherit the mask, so that they survive a signal to the process group: the current step needs them.
        """
        self.received = 0
        self._was_interrupted = False
        self._owner = os.getpid()
        if _is_main_thread():
            self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)

    def listen(self) -> None:
        """Starts recording signals, including those received since `hold`."""
        if self._mask is not None:
            self._replaced = _install_handler(self._note)
            self._unblock()

    def release(self) -> None:
        """Restores the previous handlers; may be called more than once."""
        for number, handler in self._replaced.items():
            signal.signal(number, handler)
        self._replaced = {}
        self._unblock()

    def _note(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._owner:  # forked children inherit the handler; their parent ends them
            return
        name = signal.Signals(number).name
        if number == signal.SIGINT and self._was_interrupted:
            write_message(f"second {name}: stopping at once, without another save")
            raise Interrupted(number)
        self._was_interrupted = self._was_interrupted or number == signal.SIGINT
        if not self.received:
            more = "; a second Ctrl-C stops at once" if number == signal.SIGINT else ""
            write_message(f"{name}: the step in progress is finished and saved, then the run stops{more}")
            self.received = number

    def _unblock(self) -> None:
        if self._mask is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)
            self._mask = None
