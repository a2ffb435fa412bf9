"""Periodic checkpoints, disk space, and a clean stop when a signal arrives."""

import logging
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn

from ssl_zoo.distributed import whole
from ssl_zoo.training.checkpoints import CheckpointNotWritten, latest_checkpoint, list_checkpoints, step_of
from ssl_zoo.training.loggers import MetricsFile
from ssl_zoo.training.stop_signals import Interrupted, StopSignals

log = logging.getLogger(__name__)


class NonFiniteWeights(RuntimeError):
    """A parameter is NaN or infinite; nothing was saved."""


def check_disk_space(folder: str | Path, method: nn.Module, keep: int = 2) -> None:
    """Raises ValueError unless the disk has room for `keep` checkpoints and the one being written.

    The size of a checkpoint is estimated as the state plus two values per parameter, as for Adam.
    """
    state = sum(tensor.nbytes for tensor in method.state_dict().values())
    size = state + 2 * sum(weight.nbytes for weight in method.parameters() if weight.requires_grad)
    existing = sum(path.stat().st_size for path in list_checkpoints(folder))
    needed, free = (keep + 1) * size - existing, shutil.disk_usage(folder).free
    if free < needed:
        raise ValueError(
            f"hydra.run.dir={folder}: {free / 1e6:,.0f} MB are free on this disk, and the checkpoints of this run need "
            f"{needed / 1e6:,.0f} MB. Free some room, or give a folder on another disk"
        )


def delete_older_checkpoints(folder: str | Path) -> None:
    """Deletes all checkpoints except the newest undamaged one; nothing if all are damaged."""
    newest = latest_checkpoint(folder)
    for path in list_checkpoints(folder) if newest else []:
        if path != newest:
            path.unlink(missing_ok=True)
            log.warning("deleted %s to make room", path)


class PeriodicCheckpoint(Callback):
    """Saves every `every` optimizer steps and at the end of training, and keeps the newest `keep`.

    A stop signal (see `stop_signals`) also triggers a save: the handler only records it; after the current step all
    processes agree, save and raise `Interrupted`. If a save fails, training continues and the save is retried `every`
    steps later. If the last save fails, it is retried after deleting all older checkpoints but one, and then raises
    `CheckpointNotWritten`. Weights that are not finite are never saved and raise `NonFiniteWeights`. Must be the last
    callback.

    Args:
        folder: `<run folder>/checkpoints`.
        every: optimizer steps between two saves.
        keep: number of checkpoints to keep, at least 1; 2 leave an intact one if the newest is damaged later.

    Attributes:
        seconds: total time of saving since the process started.
    """

    def __init__(self, folder: str | Path, every: int, keep: int = 2):
        if every < 1:
            raise ValueError(f"trainer.checkpoint_every={every}: must be 1 or more optimizer steps")
        if keep < 1:
            raise ValueError(f"keep={keep}: must be 1 or more checkpoints")
        self.folder = Path(folder)
        self.every = every
        self.keep = keep
        self.seconds = 0.0
        self._signals = StopSignals()
        self._stop = 0  # the signal that all processes agreed on, 0 for none
        self._step = 0  # the last completed step
        self._saved_step = 0  # step of the newest checkpoint, the same on every process

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Blocks stop signals while the data loader starts."""
        self._signals.hold()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Removes partial files and starts handling stop signals."""
        self._step = self._saved_step = trainer.global_step
        if trainer.is_global_zero and self.folder.is_dir():
            for partial in self.folder.glob(".*.part"):  # left by a process that was killed while saving
                partial.unlink()
        self._signals.listen()
        if trainer.received_sigterm:  # received before our handler was installed
            self._signals.received = signal.SIGTERM
        self._agree(trainer, pl_module)
        self._leave_if_stopped()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Stops if a stop signal was received."""
        # Not at the end of the previous batch, because Lightning logs that step's metrics only after its hooks.
        self._leave_if_stopped()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Saves every `every` steps and checks for stop signals."""
        if trainer.global_step == self._step:  # gradients are still being accumulated
            return
        self._step = trainer.global_step
        # On an accelerator agreeing synchronises with the device, so it happens only every 8th step.
        if pl_module.device.type == "cpu" or trainer.world_size == 1 or self._step % 8 == 0:
            self._agree(trainer, pl_module)
        if self._stop or self._step % self.every == 0:
            self._write_metrics(trainer)
        if self._stop:
            try:
                self._save_last(trainer, pl_module)
            except CheckpointNotWritten as error:
                log.error("%s", error)  # stop nevertheless: the run resumes from the previous checkpoint
        elif self._step % self.every == 0 and (failure := self._save(trainer, pl_module)):
            log.error("%s Training goes on, the next attempt is in %d steps.", failure, self.every)

    def _write_metrics(self, trainer: Trainer) -> None:
        """Writes the metrics of this step, which a run that is killed right after its checkpoint never logs again.

        Lightning logs them after its hooks, and so once more; `MetricsFile` writes equal rows once.
        """
        metrics = dict(trainer.callback_metrics)
        if metrics.pop("step", None) == self._step:
            for logger in trainer.loggers:
                if isinstance(logger, MetricsFile):
                    logger.log_metrics({name: float(value) for name, value in metrics.items()}, self._step)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Saves the last step and stops handling signals."""
        self._save_last(trainer, pl_module)
        self._agree(trainer, pl_module)
        self._leave_if_stopped()
        self._signals.release()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Stops handling signals."""
        self._signals.release()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Stops handling signals."""
        self._signals.release()  # on_train_end is not called for a resumed run without steps left

    def _agree(self, trainer: Trainer, module: LightningModule) -> None:
        self._stop = self._signals.received
        if trainer.world_size > 1:
            stop = torch.tensor(self._stop, device=module.device)
            torch.distributed.all_reduce(stop, op=torch.distributed.ReduceOp.MAX)
            self._stop = int(stop)

    def _leave_if_stopped(self) -> None:
        if self._stop:
            newest = list_checkpoints(self.folder)[-1:]
            kept = f"the same command goes on from {newest[0].name}" if newest else "nothing was saved yet"
            log.warning("%s: stopped after step %d; %s", signal.Signals(self._stop).name, self._step, kept)
            raise Interrupted(self._stop, newest[0] if newest else None)

    def _save_last(self, trainer: Trainer, module: LightningModule) -> None:
        """Saves, with a second attempt after freeing disk space; raises `CheckpointNotWritten` on every process."""
        if self._saved_step == self._step or not self._save(trainer, module):
            return
        if trainer.is_global_zero:
            delete_older_checkpoints(self.folder)
        if failure := self._save(trainer, module):
            raise CheckpointNotWritten(
                f"{failure} The weights of step {self._step} are lost. Free some room and give the same command again: "
                f"it goes on from step {self._saved_step}."
            )

    def _save(self, trainer: Trainer, module: LightningModule) -> str | None:
        """Saves; returns the reason if that failed, the same on every process, else None."""
        _check_finite(module, self._step)
        started = time.perf_counter()
        failure = None
        try:
            trainer.save_checkpoint(self.folder / f"step-{self._step:08d}.ckpt", False)  # False: not only weights
        except CheckpointNotWritten as error:
            trainer.strategy.barrier()  # only rank 0 writes; the others wait at save_checkpoint's barrier
            failure = str(error)
        failure = trainer.strategy.broadcast(failure)
        if failure is None:
            self._saved_step = self._step
            if trainer.is_global_zero:
                self._prune()
        self.seconds += time.perf_counter() - started
        return failure

    def _prune(self) -> None:
        """Deletes all but the newest `keep`. Those of later steps, which an earlier session made, are not touched."""
        past = [path for path in list_checkpoints(self.folder) if step_of(path) <= self._step]
        for path in past[: -self.keep]:
            try:
                path.unlink()
            except OSError as error:
                log.warning("could not delete an old checkpoint: %s", error)


def _check_finite(module: nn.Module, step: int) -> None:
    names, weights = zip(*module.named_parameters(), strict=True)
    finite = torch.stack([whole(weight.isfinite().all()) for weight in weights])
    if not finite.all():
        name = names[int(finite.int().argmin())]
        raise NonFiniteWeights(
            f"step {step}: {int((~finite).sum())} parameters are not finite, the first is {name}; nothing was saved, "
            "the last checkpoint is sound. Lower the learning rate, clip gradients or use a higher precision."
        )
