"""A clean stop when the machine is about to be taken away or the user asks for it, from the start of a process on."""

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
"""Sent by users (Ctrl-C), terminals that close, and schedulers ahead of taking the machine away."""

Handler = Callable[[int, FrameType | None], Any]


class Interrupted(SystemExit):
    """The process stops because of `signal`. Its exit code is 128 + signal, as shells have it.

    checkpoint: the file to go on from, None if none is known.
    """

    def __init__(self, number: int, checkpoint: Path | None = None):
        super().__init__(128 + number)
        self.signal = signal.Signals(number)
        self.checkpoint = checkpoint


def write_message(line: str) -> None:
    """To stderr, from a signal handler: `print` may not be entered twice, and the terminal may be gone."""
    with contextlib.suppress(OSError):
        os.write(2, f"{line}\n".encode())


def _install_handler(handler: Handler) -> dict[signal.Signals, Any]:
    """Handles the stop signals by `handler`; returns what did before. Those that are ignored (nohup) stay so."""
    heeded = [number for number in STOP_SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    return {number: signal.signal(number, handler) for number in heeded}


def _is_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()  # no other may set handlers


@contextmanager
def stop_immediately() -> Iterator[None]:
    """While nothing is trained there is nothing to save: inside, a stop signal says so and raises `Interrupted`."""
    owner = os.getpid()

    def leave(number: int, frame: FrameType | None) -> None:
        if os.getpid() != owner:  # forked children inherit the handler, and should end as any process does
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
    """Remembers that a stop signal came, for the training loop to ask about between steps.

    A second Ctrl-C does not wait for that: it raises `Interrupted` where the program is.

    Lightning registers handlers of its own as training starts; they talk to other processes from inside the handler
    and then exit with 0 and without a checkpoint. `listen` comes after that and replaces them until `release`.
    """

    def __init__(self) -> None:
        self.received = 0
        self._mask: set[int | signal.Signals] | None = None
        self._replaced: dict[signal.Signals, Any] = {}
        self._owner = os.getpid()

    def hold(self) -> None:
        """Blocks the signals while the data loader starts.

        Its workers inherit that and so outlive a signal to the whole process group: the step in progress needs them.
        """
        self.received, self._owner = 0, os.getpid()
        if _is_main_thread():
            self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)

    def listen(self) -> None:
        """Takes note of signals from now on, those that came since `hold` included."""
        if self._mask is not None:
            self._replaced = _install_handler(self._note)
            self._unblock()

    def release(self) -> None:
        """Puts back what was there before; may be called more than once."""
        for number, handler in self._replaced.items():
            signal.signal(number, handler)
        self._replaced = {}
        self._unblock()

    def _note(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._owner:  # forked children inherit the handler; their parent ends them
            return
        name = signal.Signals(number).name
        if number == signal.SIGINT == self.received:
            write_message(f"second {name}: stopping at once, without another save")
            raise Interrupted(number)
        if not self.received:
            more = "; a second Ctrl-C stops at once" if number == signal.SIGINT else ""
            write_message(f"{name}: the step in progress is finished and saved, then the run stops{more}")
        self.received = number

    def _unblock(self) -> None:
        if self._mask is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)
            self._mask = None
