"""How long a run has trained, without evaluation and checkpoints, which are subtracted when they end."""

import math
import time
from collections.abc import Sequence
from typing import Protocol


class Pause(Protocol):
    """Something that interrupts training now and then.

    Attributes:
        seconds: what that has cost in this session.
    """

    seconds: float


class Clock:
    """Training time over all sessions of a run. A session is one process from start to end.

    Args:
        pauses: what does not count as training time.

    Attributes:
        earlier: seconds of training in earlier sessions.
        first_step_at: when the first step of this session ended, in seconds since 1970; NaN before.
    """

    def __init__(self, pauses: Sequence[Pause] = ()):
        self.pauses = pauses
        self.earlier = 0.0
        self.first_step_at = math.nan
        self._started: float | None = None
        self._first_step_end = math.nan
        self._first_batches = 0

    def start(self) -> None:
        """Begins this session."""
        self._started = time.perf_counter()

    def step(self, batches: int) -> None:
        """Notes the end of an optimizer step; only the first of a session matters. `batches`: those seen so far."""
        if math.isnan(self._first_step_end):
            self._first_step_end = self._now()
            self._first_batches = batches
            self.first_step_at = time.time()

    @property
    def seconds(self) -> float:
        """Seconds of training so far, over all sessions."""
        return self.earlier + (0.0 if self._started is None else self._now() - self._started)

    @property
    def has_stepped(self) -> bool:
        """Whether this session has made a step."""
        return not math.isnan(self._first_step_end)

    def batches_per_second(self, batches: int) -> float:
        """Speed of this session after its first step, which compiles and allocates. NaN until there is a second one.

        Args:
            batches: those seen so far, over all sessions.
        """
        if not self.has_stepped or batches <= self._first_batches:
            return math.nan
        return (batches - self._first_batches) / (self._now() - self._first_step_end)

    def _now(self) -> float:
        return time.perf_counter() - sum(pause.seconds for pause in self.pauses)
