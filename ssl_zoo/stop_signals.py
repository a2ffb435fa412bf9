"""A clean stop when the machine is about to be taken away: a note now, action at the next step boundary."""

import os
import signal
import threading
from pathlib import Path
from types import FrameType
from typing import Any

STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
"""Sent by schedulers ahead of taking the machine away."""


class Interrupted(SystemExit):
    """Training stopped at a step boundary because of `signal`. Its exit code is 128 + signal, as shells have it.

    checkpoint: the file to go on from, None if the run has not written one.
    """

    def __init__(self, number: int, checkpoint: Path | None):
        super().__init__(128 + number)
        self.signal = signal.Signals(number)
        self.checkpoint = checkpoint


class StopSignals:
    """Remembers that a stop signal came, for the training loop to ask about between steps.

    Lightning registers handlers of its own as training starts; they talk to other processes from inside the handler
    and then exit with 0 and without a checkpoint. `listen` comes after that and replaces them until `release`.
    """

    def __init__(self) -> None:
        self.received = 0
        self._mask: set[int | signal.Signals] | None = None
        self._replaced: dict[signal.Signals, Any] = {}

    def hold(self) -> None:
        """Blocks the signals while the data loader starts.

        Its workers inherit that and so outlive a signal to the whole process group: the step in progress needs them.
        """
        self.received = 0
        if threading.current_thread() is threading.main_thread():  # no other thread may set handlers
            self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)

    def listen(self) -> None:
        """Takes note of signals from now on, those that came since `hold` included."""
        owner = os.getpid()

        def note(number: int, frame: FrameType | None) -> None:
            if os.getpid() == owner:  # forked children inherit the handler
                self.received = number

        if self._mask is not None:
            self._replaced = {number: signal.signal(number, note) for number in STOP_SIGNALS}
            self._unblock()

    def release(self) -> None:
        """Puts back what was there before; may be called more than once."""
        for number, handler in self._replaced.items():
            signal.signal(number, handler)
        self._replaced = {}
        self._unblock()

    def _unblock(self) -> None:
        if self._mask is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)
            self._mask = None
