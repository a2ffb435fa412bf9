"""Shows the progress of training: a live bar on a terminal, or a few lines in a log file."""

import logging
import math
import time
from typing import Any

from lightning.pytorch import Callback, Trainer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ssl_zoo.learner import Learner

log = logging.getLogger(__name__)

MAX_SECONDS_PER_LINE = 10.0
"""A log file gets a line after this time at the latest, for those who follow it."""


class ProgressBar(Callback):
    """Shows the elapsed fraction of the budget, the loss and the examples per second over all processes, on rank 0.

    Args:
        batch_size: examples per batch over all processes.
        lines: number of lines that the log file of a short run gets instead of the bar; a long one gets more, see
            `MAX_SECONDS_PER_LINE`.
    """

    def __init__(self, batch_size: int, lines: int = 10):
        self.batch_size = batch_size
        self.lines = lines
        self.console = Console()
        self.bar: Progress | None = None
        self.lines_written = 0
        self.last_line = time.monotonic()

    def share(self, learner: Learner) -> float:
        """Returns the elapsed fraction of the budget after this step, by the clock of this process."""
        if learner.total_steps is not None:
            return min(learner.global_step / learner.total_steps, 1.0)
        assert learner.minutes is not None
        return min(learner.clock.seconds / (60 * learner.minutes), 1.0)

    def on_train_start(self, trainer: Trainer, learner: Learner) -> None:  # type: ignore[override]
        """Opens the bar on a terminal."""
        if trainer.is_global_zero and self.console.is_terminal:
            columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"))
            self.bar = Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=self.console)
            self.task = self.bar.add_task("training", total=1.0)
            self.bar.update(self.task, completed=learner.progress)
            self.bar.start()

    def on_train_batch_end(self, trainer: Trainer, learner: Learner, *_: Any) -> None:  # type: ignore[override]
        """Updates the bar, or logs a line from time to time if there is no terminal."""
        if not trainer.is_global_zero:
            return
        share, step = self.share(learner), learner.global_step
        if self.bar is not None:
            self.bar.update(self.task, completed=share)
        is_late = self.bar is None and time.monotonic() - self.last_line > MAX_SECONDS_PER_LINE
        if step == 0 or (step % learner.log_every and step > 1 and share < 1 and not is_late):
            return  # reading the loss synchronises with the device
        text = f"step {step}  loss {learner.last_loss.item():.4f}"
        speed = learner.clock.batches_per_second(learner.batches_seen) * self.batch_size
        if math.isfinite(speed):  # NaN until a second step: the first is not timed
            text += f"  {speed:,.0f} examples/s"
        if self.bar is not None:
            self.bar.update(self.task, description=text)
        elif is_late or share * self.lines >= self.lines_written:
            self.lines_written = int(share * self.lines) + 1
            self.last_line = time.monotonic()
            log.info("%3.0f%%  %s", 100 * share, text)

    def on_train_end(self, trainer: Trainer, learner: Learner) -> None:  # type: ignore[override]
        """Completes and closes the bar."""
        self._close(completed=1.0)

    def on_exception(self, trainer: Trainer, learner: Learner, error: BaseException) -> None:  # type: ignore[override]
        """Closes the bar."""
        self._close()

    def _close(self, **update: Any) -> None:
        if self.bar is not None:
            self.bar.update(self.task, **update)
            self.bar.stop()
            self.bar = None
