"""`hydra/launcher=process`: runs each job of a sweep in a process of its own.

Hydra's default launcher calls the jobs one after the other in its own process, so a job that exits, is killed, crashes
or hangs ends the whole sweep, and changes to the environment leak into the next job. Here a job is a command of its
own, see `commands.py`, and cannot affect the others. The launcher writes results.json for a job that could not.

Hydra imports this module at every start through `hydra_plugins/ssl_zoo_launcher.py`, so it must not import slow
packages such as torch or pandas.
"""

import contextlib
import os
import signal
import time
from collections import deque
from collections.abc import Iterator, Sequence
from types import FrameType

from hydra.core.utils import JobReturn
from hydra.errors import CompactHydraException
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from ssl_zoo import files
from ssl_zoo.report import results
from ssl_zoo.sweep.commands import CommandLauncher, check_folders, lock_sweep
from ssl_zoo.sweep.job import Job, print_line
from ssl_zoo.training.stop_signals import STOP_SIGNALS, write_message


class ProcessLauncher(CommandLauncher):
    """Runs each job of a sweep in a process of its own.

    Args:
        module: run as `python -m <module>`.
        jobs: number of parallel jobs.
        timeout: maximum duration of a job in minutes, None for no limit.
        grace: seconds between asking a job to stop and killing it.
    """

    def __init__(self, module: str, jobs: int, timeout: float | None, grace: float):
        super().__init__(module)
        self.jobs = jobs
        self.timeout = timeout
        self.grace = grace

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Checks the settings; called by Hydra before `launch`."""
        super().setup(hydra_context=hydra_context, task_function=task_function, config=config)
        if self.jobs < 1:
            raise CompactHydraException(f"hydra.launcher.jobs={self.jobs}: give 1 or more jobs at once")
        if self.timeout is not None and self.timeout <= 0:
            raise CompactHydraException(f"hydra.launcher.timeout={self.timeout:g}: give minutes, or null for no limit")

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Runs the jobs that are not completed and returns how each ended; exits with status 128 + n after signal n."""
        jobs = self.plan(job_overrides, initial_job_idx)
        check_folders(self.sweep, jobs)
        with lock_sweep(self.sweep), _catch_stop_signals() as received:
            files.write_atomically(self.sweep / "multirun.yaml", OmegaConf.to_yaml(self.config))
            self._run(jobs, self._environment(), received)
        ends = [self.end_of(job) for job in jobs]
        if not received:
            return ends
        # Hydra calls the callbacks, such as `WriteReport`, only after a sweep that does not exit.
        if not _is_second_interrupt(received):
            unwritten = [end.unwritten for end in ends if end.unwritten]
            self.context.callbacks.on_multirun_end(config=self.config, config_name=None, unwritten=unwritten)
        left = [job for job in jobs if job.status != "completed"]
        print_line(f"Sweep stopped by {signal.Signals(received[0]).name}. {len(left)} of {len(jobs)} jobs remain:")
        for job in left:
            print_line(f"  {job.title}  {job.status}")
        print_line(f"The same command with hydra.sweep.dir={self.sweep} does what remains.")
        raise SystemExit(128 + received[0])

    def _environment(self) -> dict[str, str]:
        environment = self.cleaned_environment() | self.job_variables()
        if self.jobs > 1:  # otherwise every job uses all cores
            environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // self.jobs)))
        return environment

    def _run(self, jobs: list[Job], environment: dict[str, str], received: list[int]) -> None:
        """Runs the jobs, `self.jobs` at a time, until all have ended or, after a signal, all that were started."""
        waiting, running = deque(jobs), list[Job]()
        try:
            while running or (waiting and not received):
                while waiting and len(running) < self.jobs and not received:
                    job = waiting.popleft()
                    job.prefix = f"[{job.number + 1}] " if self.jobs > 1 else ""
                    if results.is_complete(job.folder):
                        job.status = "completed"
                        print_line(f"{job.title}  skipped, completed before  {job.folder}")
                        continue
                    print_line(f"{job.title}  ->  {job.folder}")
                    if job.start(environment):
                        running.append(job)
                    else:
                        print_line(job.outcome())
                time.sleep(0.05)
                for job in list(running):
                    job.follow()
                    self._limit(job, received)
                    if job.process.poll() is not None:
                        running.remove(job)
                        job.finish(interrupted=bool(received))
                        print_line(job.outcome())
        finally:
            for job in running:
                job.kill()

    def _limit(self, job: Job, received: list[int]) -> None:
        """Stops a job on timeout or when the sweep is stopped; kills it after `grace` or a second interrupt."""
        now = time.monotonic()
        if received and job.stop_reason is None:
            # SIGINT is passed on as SIGTERM: the job may have received SIGINT too, and a second one skips its save.
            number = signal.SIGTERM if received[0] == signal.SIGINT else received[0]
            job.stop(number, f"sweep stopped by {signal.Signals(received[0]).name}", self.grace)
        elif self.timeout is not None and job.stop_reason is None and now - job.started > 60 * self.timeout:
            job.stop(signal.SIGTERM, f"timed out after {self.timeout:g} min", self.grace)
        if now > job.kill_at or _is_second_interrupt(received):
            job.kill()


def _is_second_interrupt(received: list[int]) -> bool:
    """Whether a Ctrl-C followed the first signal; other signals, such as SIGXCPU, may repeat by themselves."""
    return signal.SIGINT in received[1:]


@contextlib.contextmanager
def _catch_stop_signals() -> Iterator[list[int]]:
    """Context manager that collects stop signals in a list; those that are ignored (nohup) stay ignored."""
    received: list[int] = []

    def note(number: int, _: FrameType | None) -> None:
        if not received:
            write_message(
                f"{signal.Signals(number).name}: the running jobs are asked to save and stop, then the sweep reports "
                "what there is; a second Ctrl-C stops at once"
            )
        received.append(number)

    numbers = [number for number in STOP_SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, note) for number in numbers}
    try:
        yield received
    finally:
        for number, handler in before.items():
            # A signal may repeat while the report is written, as SIGXCPU does every second.
            repeats = number in received and number != signal.SIGINT
            signal.signal(number, signal.SIG_IGN if repeats else handler)
