"""`hydra/launcher=slurm`: submits a sweep as one job array of Slurm and does not wait for it.

The array's task n runs job n of the sweep, by srun. The script that is submitted stays in the sweep folder. Which jobs
are queued or running is asked of Slurm: the array has the sweep folder as its comment. So the same command again
submits only what is neither completed nor in the queue.
"""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import CompactHydraException
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from ssl_zoo import files
from ssl_zoo.report import results
from ssl_zoo.sweep.commands import CommandLauncher, JobEnd, check_folders, lock_sweep
from ssl_zoo.sweep.job import OUTPUT_LOG, Job, print_line
from ssl_zoo.sweep.record import QUEUED

SCRIPT_FOLDER = "slurm"
"""Below the sweep folder: the script, and Slurm's own messages, `<array>_<task>.log`."""


class SlurmLauncher(CommandLauncher):
    """Submits the jobs of a sweep that are not completed as a job array.

    Args:
        module: run as `python -m <module>`.
        jobs: number of jobs that may run at once, None for no limit.
        partition, account, gres, time, mem: as for sbatch; None for the cluster's defaults.
        cpus: per task.
        nodes: per job.
        tasks: per node; one for each GPU, if there are several.
        signal: sent before the time limit, such as "USR1@120", on which a run saves and is requeued; None for none.
        requeue: whether Slurm may start a job again.
        extra: further lines of sbatch, such as "--constraint=a100".
    """

    def __init__(
        self,
        module: str,
        jobs: int | None,
        partition: str | None,
        account: str | None,
        gres: str | None,
        time: str | None,
        mem: str | None,
        cpus: int | None,
        nodes: int,
        tasks: int,
        signal: str | None,
        requeue: bool,
        extra: Sequence[str],
    ):
        super().__init__(module)
        self.jobs = jobs
        self.cpus = cpus
        self.options: dict[str, Any] = {
            "partition": partition,
            "account": account,
            "gres": gres,
            "time": time,
            "mem": mem,
            "cpus-per-task": cpus,
            "nodes": nodes,
            "ntasks-per-node": tasks,
            "signal": signal,
        }
        self.lines = ["--requeue" if requeue else "--no-requeue", *extra]

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Checks the settings; called by Hydra before `launch`."""
        super().setup(hydra_context=hydra_context, task_function=task_function, config=config)
        if self.jobs is not None and self.jobs < 1:
            raise CompactHydraException(f"hydra.launcher.jobs={self.jobs}: give 1 or more jobs at once, or null")
        for line in self.lines:
            if not re.fullmatch(r"--?[a-zA-Z][^\n]*", line):
                raise CompactHydraException(
                    f"hydra.launcher.extra: {line!r} is no option of sbatch, such as --exclusive"
                )

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Submits what is missing or failed, prints the ids and returns at once."""
        jobs = self.plan(job_overrides, initial_job_idx)
        check_folders(self.sweep, jobs)
        with lock_sweep(self.sweep):
            files.write_atomically(self.sweep / "multirun.yaml", OmegaConf.to_yaml(self.config))
            queued = _queued_tasks(self.sweep)
            missing = []
            for job in jobs:
                if results.is_complete(job.folder):
                    job.status = "completed"
                    print_line(f"{job.title}  skipped, completed before  {job.folder}")
                elif job.number in queued:
                    print_line(f"{job.title}  is in the queue  {job.folder}")
                else:
                    missing.append(job)
            if missing:
                self._submit(missing)
        return [self.end_of(job) if job.status == "completed" else _open_end(job) for job in jobs]

    def _submit(self, jobs: list[Job]) -> None:
        folder = self.sweep / SCRIPT_FOLDER
        folder.mkdir(exist_ok=True)
        script = folder / "submit.sh"
        files.write_atomically(script, self.script(jobs))
        new = [job for job in jobs if not (job.folder / results.RESULTS_NAME).exists()]
        for job in new:  # before it starts, so that the report knows of it
            job.folder.mkdir(parents=True, exist_ok=True)
            results.write_results(job.folder, results.empty_results("interrupted", **job.known, error=QUEUED))
        try:
            array = _call(["sbatch", "--parsable", str(script)], self.cleaned_environment()).partition(";")[0].strip()
        except CompactHydraException:
            for job in new:
                (job.folder / results.RESULTS_NAME).unlink()
            raise
        for job in jobs:
            print_line(f"{job.title}  submitted as {array}_{job.number}  ->  {job.folder}")
        print_line(f"squeue --job={array} shows them, scancel {array} ends them, their output is {OUTPUT_LOG}")

    def script(self, jobs: list[Job]) -> str:
        """Returns the batch script that runs task n of the array as the job of that number."""
        numbers = ",".join(str(job.number) for job in jobs)
        options = {
            "job-name": self.job_variables()["SSL_ZOO_SWEEP"],
            "comment": self.sweep.resolve(),
            "array": numbers if self.jobs is None else f"{numbers}%{self.jobs}",
            "output": f"{self.sweep.resolve() / SCRIPT_FOLDER}/%A_%a.log",
            "open-mode": "append",
            **{key: value for key, value in self.options.items() if value is not None},
        }
        exports = self.job_variables()
        if self.cpus is not None:
            exports["SRUN_CPUS_PER_TASK"] = str(self.cpus)  # srun does not take it from sbatch
        return "\n".join(
            [
                "#!/bin/bash",
                *(f"#SBATCH --{key}={shlex.quote(str(value))}" for key, value in options.items()),
                *(f"#SBATCH {line}" for line in self.lines),
                *(f"export {key}={shlex.quote(value)}" for key, value in exports.items()),
                "case $SLURM_ARRAY_TASK_ID in",
                *(
                    f"{job.number}) folder={shlex.quote(str(job.folder))}; job=({shlex.join(job.command)});;"
                    for job in jobs
                ),
                "esac",
                "trap : TERM INT USR1 USR2  # the job saves; this shell waits for it",
                f'srun --kill-on-bad-exit=1 "${{job[@]}}" >>"$folder/{OUTPUT_LOG}" 2>&1',
                "code=$?",
                f'{shlex.quote(sys.executable)} -m ssl_zoo.sweep.record "$folder" $code',
                "exit $code",
                "",
            ]
        )


def _open_end(job: Job) -> JobEnd:
    """The end of a job that has not ended yet."""
    return JobEnd(job.known["overrides"], status=JobStatus.UNKNOWN, title=job.title)


def _queued_tasks(sweep: Path) -> set[int]:
    """Returns the numbers of the sweep's jobs that wait or run."""
    command = ["squeue", "--me", "--noheader", "--array", "--format=%K|%k"]
    lines = (line.strip().partition("|") for line in _call(command, dict(os.environ)).splitlines())
    return {int(task) for task, _, comment in lines if comment == str(sweep.resolve()) and task.isdigit()}


def _call(command: list[str], environment: dict[str, str]) -> str:
    """Runs a command of Slurm and returns its output; if it fails, its message is the error of the sweep."""
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise CompactHydraException(
            f"hydra/launcher=slurm: there is no {command[0]} here. Give the command on a machine that submits jobs, or "
            "leave hydra/launcher out"
        ) from error
    if done.returncode:
        raise CompactHydraException(f"hydra/launcher=slurm: {command[0]}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout
