"""Supervises the processes of one run on one machine: if one dies, the others end with a message that says why.

Lightning starts the other processes itself (`trainer.devices=2`) and kills the first one, with SIGKILL and no message,
five seconds after another has died; if the first one dies, the others may wait for it indefinitely.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.plugins.environments import LightningEnvironment
from lightning.pytorch.strategies.launchers.subprocess_script import _SubprocessScriptLauncher

GRACE_SECONDS = 10.0
"""Time in which a process may notice by itself that another has died; usually a connection closes."""
POLL_SECONDS = 0.2
"""Interval between two checks."""


class ProcessDied(RuntimeError):
    """Another process of this run ended unexpectedly. The message names it and its signal or exit status."""


@contextmanager
def watch_processes(trainer: Trainer, died: Callable[[ProcessDied], int]) -> Iterator[None]:
    """Context manager in which the processes of a run watch each other while `trainer` trains.

    When one dies, the others raise `ProcessDied`. Where no exception can be raised, as in an NCCL collective that waits
    for the dead process, they exit after `GRACE_SECONDS` with the status that `died` returns.
    """
    launcher, parent = trainer.strategy.launcher, os.getppid()
    was_started = False
    if isinstance(launcher, _SubprocessScriptLauncher):
        if not launcher.cluster_environment.creates_processes_externally:
            trainer.strategy._launcher = _Launcher(launcher, died)  # there is no public way to set it
        else:
            was_started = trainer.local_rank > 0 and isinstance(launcher.cluster_environment, LightningEnvironment)
    if was_started:
        threading.Thread(target=_end_after_parent, args=(parent, died), daemon=True, name="parent watch").start()
    try:
        yield
    except Exception as error:
        if was_started and _wait_for(lambda: os.getppid() != parent):
            raise _parent_died(parent) from error
        raise


class _Launcher(_SubprocessScriptLauncher):
    def __init__(self, launcher: _SubprocessScriptLauncher, died: Callable[[ProcessDied], int]):
        super().__init__(launcher.cluster_environment, launcher.num_processes, launcher.num_nodes)
        self.died = died
        self.finished = threading.Event()

    def launch(self, function: Callable[..., Any], *args: Any, trainer: Trainer | None = None, **kwargs: Any) -> Any:
        """Same as in Lightning, but watches the processes and raises `ProcessDied`."""
        self.cluster_environment.validate_settings(num_devices=self.num_processes, num_nodes=self.num_nodes)
        self._call_children_scripts()
        threading.Thread(target=self._watch, daemon=True, name="process watch").start()
        try:
            return function(*args, **kwargs)
        except Exception as error:
            if death := _wait_for(self._death):
                self.kill(signal.SIGKILL)
                raise death from error
            raise
        finally:
            self.finished.set()

    def _watch(self) -> None:
        while not (death := self._death()):
            if self.finished.wait(POLL_SECONDS):
                return
        if self.finished.wait(GRACE_SECONDS):
            return
        self.kill(signal.SIGKILL)
        status = self.died(death)
        sys.stdout.flush()
        os._exit(status)

    def _death(self) -> ProcessDied | None:
        for rank, process in enumerate(self.procs, start=1):
            if process.poll():
                return ProcessDied(
                    f"rank {rank} of {len(self.procs) + 1} (process {process.pid}) {_describe_exit(process)}, so "
                    "the run cannot go on. The same command goes on from the last checkpoint"
                )
        return None


def _describe_exit(process: subprocess.Popen[Any]) -> str:
    code = process.returncode
    if code > 0:
        return f"ended with exit status {code}, its own message is above"
    name = signal.Signals(-code).name
    return f"was killed by {name}" + (", as the system does when memory runs out" if name == "SIGKILL" else "")


def _wait_for(condition: Callable[[], Any], seconds: float = 2) -> Any:
    """Polls `condition` until it is true: the connections of a dying process close slightly before it exits."""
    until = time.monotonic() + seconds
    while not (found := condition()) and time.monotonic() < until:
        time.sleep(POLL_SECONDS)
    return found


def _parent_died(parent: int) -> ProcessDied:
    rank = os.environ["LOCAL_RANK"]
    return ProcessDied(
        f"rank 0 (process {parent}), which started rank {rank}, is gone, so this one ends too. The same command goes "
        "on from the last checkpoint"
    )


def _end_after_parent(parent: int, died: Callable[[ProcessDied], int]) -> None:
    while os.getppid() == parent:
        time.sleep(POLL_SECONDS)
    time.sleep(GRACE_SECONDS)  # enough for a process that can end by itself
    os._exit(died(_parent_died(parent)))
