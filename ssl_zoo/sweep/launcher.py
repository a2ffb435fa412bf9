"""`hydra/launcher=process`: runs each job of a sweep in a process of its own.

Hydra's default launcher calls the jobs one after the other in its own process, so a job that exits, is killed, crashes
or hangs ends the whole sweep, and changes to the environment leak into the next job. Here a job is the command
`python -m <module> <overrides> hydra.run.dir=<sweep folder>/<job>` and cannot affect the others. A job is completed
when its results.json says so; the launcher writes the file for a job that could not. Repeating a sweep with the same
`hydra.sweep.dir` runs only the jobs that are not completed.

Hydra imports this module at every start through `hydra_plugins/ssl_zoo_launcher.py`, so it must not import slow
packages such as torch or pandas.
"""

import contextlib
import os
import re
import signal
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import CompactHydraException
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict
from yaml import YAMLError

from ssl_zoo import files
from ssl_zoo.config import quote
from ssl_zoo.report import results
from ssl_zoo.sweep.job import Job, print_line
from ssl_zoo.training.stop_signals import STOP_SIGNALS, write_message

# Settings of the sweep itself; a job gets its own.
_SWEEP_SETTINGS = re.compile(r"[+~]*hydra[./](launcher|sweeper|sweep|run|mode)\b")
# Environment variables of a distributed run or of one job; inherited, they would merge jobs into one run.
_PER_RUN_VARIABLES = re.compile(
    r"((LOCAL|NODE|GROUP|ROLE)_)?RANK|((LOCAL|GROUP|ROLE)_)?WORLD_SIZE|MASTER_\w+|TORCHELASTIC_\w+|PL_\w+"
    r"|WANDB_RUN_ID|SSL_ZOO_RUN_ID"
)


class GridSweeper(BasicSweeper):
    """Hydra's BasicSweeper, except that the launcher writes multirun.yaml.

    Hydra writes it before it is known whether the folder belongs to this sweep.
    """

    def sweep(self, arguments: list[str]) -> Any:
        """Launches one job for each point of the grid."""
        assert self.hydra_context is not None  # set by `setup`
        assert self.launcher is not None
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        (jobs,) = self.split_arguments(parser.parse_overrides([*self._parse_config(), *arguments]), None)
        self.validate_batch_is_legal(jobs)
        return [self.launcher.launch(jobs, initial_job_idx=0)]


class ProcessLauncher(Launcher):
    """Runs each job of a sweep in a process of its own.

    Args:
        module: run as `python -m <module>`.
        jobs: number of parallel jobs.
        timeout: maximum duration of a job in minutes, None for no limit.
        grace: seconds between asking a job to stop and killing it.
    """

    def __init__(self, module: str, jobs: int, timeout: float | None, grace: float):
        self.module = module
        self.jobs = jobs
        self.timeout = timeout
        self.grace = grace

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Checks the settings; called by Hydra before `launch`."""
        self.context = hydra_context
        self.config = config
        if self.jobs < 1:
            raise CompactHydraException(f"hydra.launcher.jobs={self.jobs}: give 1 or more jobs at once")
        if self.timeout is not None and self.timeout <= 0:
            raise CompactHydraException(f"hydra.launcher.timeout={self.timeout:g}: give minutes, or null for no limit")
        if OmegaConf.select(config, "hydra.sweeper.max_batch_size") is not None:
            # With it Hydra's sweeper skips all batches after a failed job.
            raise CompactHydraException("hydra.sweeper.max_batch_size: use hydra.launcher.jobs=<how many at once>")

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Runs the jobs that are not completed; exits with status 1 if any job failed, with 128 + n after signal n."""
        sweep = Path(self.config.hydra.sweep.dir)
        jobs = self._jobs(sweep, job_overrides, initial_job_idx)
        _check_folders(sweep, jobs)
        with _lock_sweep(sweep), _catch_stop_signals() as received:
            files.write_atomically(sweep / "multirun.yaml", OmegaConf.to_yaml(self.config))
            self._run(jobs, self._environment(sweep), received)
        left = [job for job in jobs if job.status != "completed"]
        if not left and not received:
            return [JobReturn(overrides, status=JobStatus.COMPLETED) for overrides in job_overrides]
        # Hydra calls the callbacks, such as `WriteReport`, only after a sweep that does not exit.
        if not _is_second_interrupt(received):
            unwritten = [{**job.record, "folder": job.folder} for job in left if job.record and not job.is_written]
            self.context.callbacks.on_multirun_end(config=self.config, config_name=None, unwritten=unwritten)
        if not received:
            titles = ", ".join(job.title for job in left)
            print(f"error: {len(left)} of {len(jobs)} jobs did not complete: {titles}", file=sys.stderr)
            raise SystemExit(1)
        print_line(f"Sweep stopped by {signal.Signals(received[0]).name}. {len(left)} of {len(jobs)} jobs remain:")
        for job in left:
            print_line(f"  {job.title}  {job.status}")
        print_line(f"The same command with hydra.sweep.dir={sweep} does what remains.")
        raise SystemExit(128 + received[0])

    def _jobs(self, sweep: Path, job_overrides: Sequence[Sequence[str]], first: int) -> list[Job]:
        shared = set.intersection(*map(set, job_overrides)) if len(job_overrides) > 1 else set()
        jobs = []
        for number, overrides in enumerate(map(list, job_overrides), start=first):
            config = self.context.config_loader.load_sweep_config(self.config, overrides)
            with open_dict(config):
                config.hydra.job.id = config.hydra.job.num = number
            HydraConfig.instance().set_config(config)  # the folder name may refer to it
            folder = sweep / str(config.hydra.sweep.subdir)
            choices = {key.split("@")[0]: choice for key, choice in config.hydra.runtime.choices.items()}
            known = {name: choices.get(name) for name in ("experiment", "method", "backbone", "data")}
            seed = OmegaConf.select(config, "seed")
            known |= {"seed": seed if isinstance(seed, int) else None, "overrides": overrides}
            name = " ".join(text for text in overrides if text not in shared)
            title = f"[{number + 1}/{first + len(job_overrides)}] {name}"
            prefix = f"[{number + 1}] " if self.jobs > 1 else ""
            jobs.append(Job(title, folder, self._command(number, overrides, folder), known, prefix))
        return jobs

    def _command(self, number: int, overrides: list[str], folder: Path) -> list[str]:
        options = vars(get_args_parser().parse_known_args()[0])
        flags = {f"--config-{name}": options[f"config_{name}"] for name in ("name", "path", "dir")}
        given: Any = OmegaConf.to_container(self.config.hydra.overrides.hydra)  # keeps references to credentials
        return [
            *(sys.executable, "-m", self.module),
            *(f"{flag}={value}" for flag, value in flags.items() if value is not None),
            *overrides,
            *(text for text in given if not _SWEEP_SETTINGS.match(text)),
            *("hydra.mode=RUN", f"hydra.job.num={number}", f"hydra.job.id={number}"),
            f"hydra.run.dir={quote(str(folder))}",
        ]

    def _environment(self, sweep: Path) -> dict[str, str]:
        environment = {key: value for key, value in os.environ.items() if not _PER_RUN_VARIABLES.fullmatch(key)}
        environment["SSL_ZOO_SWEEP"] = "-".join(sweep.resolve().parts[-2:])
        environment["PYTHONUNBUFFERED"] = "1"  # otherwise output arrives late, and a killed job's last lines are lost
        if self.jobs > 1:  # otherwise every job uses all cores
            environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // self.jobs)))
        root = Path(__file__).resolve().parents[2]
        if root.name not in ("site-packages", "dist-packages"):  # a source checkout; the working folder may be another
            environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(root), environment.get("PYTHONPATH")]))
        return environment

    def _run(self, jobs: list[Job], environment: dict[str, str], received: list[int]) -> None:
        """Runs the jobs, `self.jobs` at a time, until all have ended or, after a signal, all that were started."""
        waiting, running = deque(jobs), list[Job]()
        try:
            while running or (waiting and not received):
                while waiting and len(running) < self.jobs and not received:
                    job = waiting.popleft()
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


def _check_folders(sweep: Path, jobs: list[Job]) -> None:
    """Raises an exception if the sweep folder holds a single run, or a job's folder results of other overrides."""
    remedy = "give the sweep a folder of its own: hydra.sweep.dir=<new folder>"
    if (sweep / results.RESULTS_NAME).exists() or (sweep / "checkpoints").exists():
        raise CompactHydraException(f"hydra.sweep.dir={sweep} holds a single run. Instead, {remedy}")
    for job in jobs:
        now = job.known["overrides"]
        written = job.folder / ".hydra" / "overrides.yaml"
        try:
            before = [str(text) for text in OmegaConf.load(written)] if written.exists() else now
        except (OSError, ValueError, YAMLError) as error:
            reason = f"{written} cannot be read ({error}), so its job is unknown. Repair it, or {remedy}"
            raise CompactHydraException(reason) from error
        if sorted(before) != sorted(now):
            other = f"another job, {' '.join(before)}, where this sweep has {' '.join(now)}"
            raise CompactHydraException(f"{job.folder} holds {other}. Instead, {remedy}")


@contextlib.contextmanager
def _lock_sweep(sweep: Path) -> Iterator[None]:
    """Context manager that makes the sweep folder and locks it; the lock ends with this process."""
    from filelock import FileLock, Timeout

    try:
        sweep.mkdir(parents=True, exist_ok=True)
        lock = FileLock(sweep / ".lock").acquire(timeout=0)
    except Timeout as error:
        reason = "another sweep runs in this folder. Wait for it, or give another folder"
        raise CompactHydraException(f"hydra.sweep.dir={sweep}: {reason}") from error
    except OSError as error:
        reason = f"its file .lock cannot be opened ({error}). Delete it, or give another folder"
        raise CompactHydraException(f"hydra.sweep.dir={sweep}: {reason}") from error
    with lock:
        yield


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
