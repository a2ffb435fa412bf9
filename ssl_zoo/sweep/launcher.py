"""`hydra/launcher=process`: runs each job of a sweep in a process of its own.

Hydra's default launcher calls the jobs one after the other in its own process, so a job that exits, is killed, crashes
or hangs ends the whole sweep, and changes to the environment leak into the next job. Here a job is the command
`python -m <module> <overrides> hydra.run.dir=<sweep folder>/<job>` and cannot affect the others. A job is completed
when its results.json says so; the launcher writes the file for a job that could not. Repeating a sweep with the same
`hydra.sweep.dir` runs only the jobs that are not completed.

Hydra imports this module at every start through `hydra_plugins/ssl_zoo_launcher.py`, so it must not import slow
packages such as torch or pandas.
"""

import argparse
import contextlib
import fcntl
import os
import re
import select
import signal
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
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
from ssl_zoo.report.results import RESULTS_NAME
from ssl_zoo.sweep.job import OUTPUT_LOG, Job, print_line
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
        self.loader = hydra_context.config_loader
        self.config = config
        if self.jobs < 1:
            raise CompactHydraException(f"hydra.launcher.jobs={self.jobs}: give 1 or more jobs at once")
        if self.timeout is not None and self.timeout <= 0:
            raise CompactHydraException(f"hydra.launcher.timeout={self.timeout:g}: give minutes, or null for no limit")
        if OmegaConf.select(config, "hydra.sweeper.max_batch_size") is not None:
            # With it Hydra's sweeper skips all batches after a failed job.
            raise CompactHydraException("hydra.sweeper.max_batch_size: use hydra.launcher.jobs=<how many at once>")

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Runs the jobs that are not completed, prints the report, and exits with status 1 if any job failed."""
        sweep = Path(self.config.hydra.sweep.dir)
        jobs = self._jobs(sweep, job_overrides, initial_job_idx)
        _check_not_a_run(sweep)
        for job in jobs:
            _check_same_job(job)
        _make_folder(sweep)
        with _lock_sweep(sweep), _catch_stop_signals() as received:
            files.write_atomically(sweep / "multirun.yaml", OmegaConf.to_yaml(self.config))
            statuses = self._run(jobs, self._environment(sweep), received)
        if not _is_second_interrupt(received):
            _write_sweep_report(jobs, sweep)
        if received:
            _print_remaining_jobs(jobs, statuses, received[0], sweep)
            raise SystemExit(128 + received[0])
        if bad := [job.title for job in jobs if statuses[job] != "completed"]:
            # Exits here, because Hydra would raise an exception for a job that is returned as failed.
            print(f"error: {len(bad)} of {len(jobs)} jobs did not complete: {', '.join(bad)}", file=sys.stderr)
            raise SystemExit(1)
        return [JobReturn(overrides, status=JobStatus.COMPLETED) for overrides in job_overrides]

    def _jobs(self, sweep: Path, job_overrides: Sequence[Sequence[str]], first: int) -> list[Job]:
        shared = set.intersection(*map(set, job_overrides)) if len(job_overrides) > 1 else set()
        jobs = []
        for number, overrides in enumerate(map(list, job_overrides), start=first):
            config = self.loader.load_sweep_config(self.config, overrides)
            with open_dict(config):
                config.hydra.job.id = config.hydra.job.num = number
            HydraConfig.instance().set_config(config)  # the folder name may refer to it
            folder = sweep / str(config.hydra.sweep.subdir)
            choices = {key.split("@")[0]: choice for key, choice in config.hydra.runtime.choices.items()}
            known = {name: choices.get(name) for name in ("experiment", "method", "backbone", "data")}
            seed = OmegaConf.select(config, "seed")
            name = " ".join(text for text in overrides if text not in shared)
            job = Job(
                title=f"[{number + 1}/{first + len(job_overrides)}] {name}",
                folder=folder,
                command=self._command(config, overrides, folder),
                known={**known, "seed": seed if isinstance(seed, int) else None, "overrides": overrides},
                prefix=f"[{number + 1}] " if self.jobs > 1 else "",
            )
            jobs.append(job)
        return jobs

    def _command(self, config: DictConfig, overrides: list[str], folder: Path) -> list[str]:
        job = config.hydra.job
        given = OmegaConf.to_container(config.hydra.overrides.hydra)  # unresolved, to keep references to credentials
        assert isinstance(given, list)
        passed_on = [str(text) for text in given if not _SWEEP_SETTINGS.match(str(text))]
        own = [
            "hydra.mode=RUN",
            f"hydra.job.num={job.num}",
            f"hydra.job.id={job.id}",
            f"hydra.run.dir={quote(str(folder))}",
        ]
        return [sys.executable, "-m", self.module, *_config_flags(), *overrides, *passed_on, *own]

    def _environment(self, sweep: Path) -> dict[str, str]:
        environment = {key: value for key, value in os.environ.items() if not _PER_RUN_VARIABLES.fullmatch(key)}
        environment["SSL_ZOO_SWEEP"] = "-".join(sweep.resolve().parts[-2:])
        environment["PYTHONUNBUFFERED"] = "1"  # otherwise the last lines of a killed job are lost
        if self.jobs > 1:  # otherwise every job uses all cores
            environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // self.jobs)))
        root = Path(__file__).resolve().parents[2]
        if root.name not in ("site-packages", "dist-packages"):  # a source checkout; the working folder may be another
            environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(root), environment.get("PYTHONPATH")]))
        return environment

    def _run(self, jobs: list[Job], environment: dict[str, str], received: list[int]) -> dict[Job, str]:
        """Runs the jobs, `self.jobs` at a time, until all have ended; returns the status of each job that has."""
        waiting, running, statuses = deque(jobs), list[Job](), dict[Job, str]()
        try:
            while running or (waiting and not received):
                # Start jobs, copy their output, stop those on timeout, and collect those that have ended.
                while waiting and len(running) < self.jobs and not received:
                    job = waiting.popleft()
                    if (before := job.read_results()) and before["status"] == "completed":
                        statuses[job] = "completed"
                        print_line(f"{job.title}  skipped, completed before  {job.folder}")
                        continue
                    print_line(f"{job.title}  ->  {job.folder}")
                    if job.start(environment):
                        running.append(job)
                    else:
                        statuses[job] = "failed"
                        print_line(_outcome(job, "failed"))
                for job in select.select([job for job in running if job.has_output], [], [], 0.1)[0]:
                    job.copy()
                for job in running:
                    self._limit(job, received)
                for job in [job for job in running if job.process.poll() is not None]:
                    running.remove(job)
                    statuses[job] = job.finish(interrupted=bool(received))
                    print_line(_outcome(job, statuses[job]))
        finally:
            for job in running:
                job.kill()
        return statuses

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


def _outcome(job: Job, status: str) -> str:
    if status == "completed":
        after_all = "" if job.process.returncode == 0 else f" ({job.ending} after that)"
        return f"{job.title}  completed in {time.monotonic() - job.started:.0f} s{after_all}  {job.folder}"
    return f"{job.title}  {status}: {job.reason()}  {job.folder / OUTPUT_LOG}"


def _print_remaining_jobs(jobs: list[Job], statuses: dict[Job, str], number: int, sweep: Path) -> None:
    left = [job for job in jobs if statuses.get(job) != "completed"]
    print_line(f"Sweep stopped by {signal.Signals(number).name}. {len(left)} of {len(jobs)} jobs remain:")
    for job in left:
        print_line(f"  {job.title}  {statuses.get(job, 'not started')}")
    print_line(f"The same command with hydra.sweep.dir={sweep} does what remains.")


def _config_flags() -> list[str]:
    """Returns the command-line options of Hydra that select configs, as given by the user."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for short, name in (("-cn", "--config-name"), ("-cp", "--config-path"), ("-cd", "--config-dir")):
        parser.add_argument(short, name)
    given = vars(parser.parse_known_args(sys.argv[1:])[0])
    return [f"--{key.replace('_', '-')}={value}" for key, value in given.items() if value is not None]


def _write_sweep_report(jobs: list[Job], sweep: Path) -> None:
    """Writes the report, including jobs that could not write their results."""
    from ssl_zoo.report import display, tables

    unwritten = {job.folder: job.record for job in jobs if job.record and not job.is_written}
    in_folders = tables.load_runs([sweep]) if any(sweep.rglob(RESULTS_NAME)) else []
    runs = [run for run in in_folders if run["folder"] not in unwritten]
    runs += [{**display.to_plain_text(record), "folder": folder} for folder, record in unwritten.items()]
    if not runs:
        return print_line(f"{sweep}: no job has any results yet, so there is no report")
    try:
        tables.write_report(runs, sweep)
    except OSError as error:  # the comparison was printed
        print(f"error: the report could not be written to {sweep}: {error}", file=sys.stderr)
        raise SystemExit(1) from error


def _make_folder(sweep: Path) -> None:
    try:
        sweep.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CompactHydraException(
            f"hydra.sweep.dir={sweep}: cannot be made ({error}). Give another folder"
        ) from error


def _check_not_a_run(sweep: Path) -> None:
    """Raises an exception if the folder holds a run: the run would be counted as one of the sweep's jobs."""
    if (sweep / RESULTS_NAME).exists() or (sweep / "checkpoints").exists():
        raise CompactHydraException(
            f"hydra.sweep.dir={sweep} holds a single run. Give the sweep a folder of its own: hydra.sweep.dir=<folder>"
        )


def _check_same_job(job: Job) -> None:
    """Raises an exception if a folder holds a job with other overrides, whose results must not be reused."""
    folder, overrides = job.folder, job.known["overrides"]
    written = folder / ".hydra" / "overrides.yaml"
    try:
        before = [str(text) for text in OmegaConf.load(written)] if written.exists() else overrides
    except (OSError, ValueError, YAMLError) as error:
        raise CompactHydraException(
            f"{written} cannot be read ({error}), so the job that it belongs to is unknown. "
            "Repair it, or give the sweep a folder of its own: hydra.sweep.dir=<new folder>"
        ) from error
    if sorted(before) != sorted(overrides):
        raise CompactHydraException(
            f"{folder} holds another job, {' '.join(before)}, where this sweep has {' '.join(overrides)}. "
            "Give it a folder of its own: hydra.sweep.dir=<new folder>"
        )


@contextlib.contextmanager
def _lock_sweep(sweep: Path) -> Iterator[None]:
    """Context manager that locks the sweep folder; the lock ends with this process."""
    try:
        file = open(sweep / ".lock", "a", opener=files.open_no_follow)  # noqa: SIM115 - closed below
    except OSError as error:
        raise CompactHydraException(
            f"hydra.sweep.dir={sweep}: its file .lock cannot be opened ({error}). Delete it, or give another folder"
        ) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise CompactHydraException(
                f"hydra.sweep.dir={sweep}: another sweep runs in this folder. Wait for it, or give another folder"
            ) from error
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
