"""Kills under torchrun and under Slurm, for benchmarks/reliability.py.

Each run is disturbed up to twice at random steps, and must end with the weights of a run that nothing happened to.
"""

import argparse
import itertools
import os
import random
import shlex
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.failures import Found
from benchmarks.small_runs import METHODS, ROOT, SAVED_EVERY, STEPS, Process, difference, last_step, undisturbed
from ssl_zoo.report import results
from tests.slurm_cluster import Slurm, start_slurm, until

TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--max-restarts=2")
WAYS = ("preempted", "SIGKILL", "requeued")
"""What happens to a job of Slurm: a job of a higher partition takes its place, all its processes are killed, or it is
requeued by `scontrol`. After SIGKILL the same command is submitted again."""


def later_step(folder: Path, rng: random.Random) -> int | None:
    """A random step at which a run may be disturbed, beyond those that it has saved; None near its end."""
    steps = range(last_step(folder) + SAVED_EVERY, STEPS - 3, SAVED_EVERY)
    return rng.choice(steps) if steps else None


def several_runs(
    options: argparse.Namespace, disturb: Callable[[int, str, int], tuple[list[str], str | None]]
) -> Found:
    """Disturbs runs of all methods in turn, up to twice each, until `options.kills` disturbances have arrived.

    Args:
        options: of the command line.
        disturb: called with the number of the run, its method and how often to disturb it; returns what reached the
            run, and a message if it did not end as specified.
    """
    counts = {"disturbed": 0, "survived": 0, "runs": 0, "bit-equal": 0}
    problems: list[str] = []
    for number, name in enumerate(itertools.islice(itertools.cycle(METHODS), options.kills)):
        if (missing := options.kills - counts["disturbed"]) <= 0:
            break
        reached, problem = disturb(number, name, min(2, missing))
        for way in reached:
            counts[way] = counts.get(way, 0) + 1
        counts["disturbed"] += len(reached)
        counts["survived"] += 0 if problem else len(reached)
        counts["runs"] += 1
        counts["bit-equal"] += problem is None
        problems += [f"{name} after {reached}: {problem}"] if problem else []
    return counts, problems


def torchrun(work: Path, options: argparse.Namespace) -> Found:
    """Kills one of two workers by SIGKILL; torchrun itself ends the other one and starts both again."""
    rng, whole = random.Random(options.seed), dict[str, Path]()

    def disturb(number: int, name: str, times: int) -> tuple[list[str], str | None]:
        words, folder, reached = f"{METHODS[name]} trainer=ddp_cpu", work / f"workers-{number}", []
        if name not in whole:
            whole[name] = work / f"undisturbed-workers-{name}"
            ended = Process(work, words, whole[name], TORCHRUN).wait()
            if ended.status:
                return [], f"fails without a kill: {ended.printed[-1000:]}"
        run = Process(work, words, folder, TORCHRUN)
        dead: set[int] = set()
        for _ in range(times):
            step = later_step(folder, rng)
            there = run.until(lambda step=step, dead=dead: last_step(folder) >= step and not dead & workers(run))  # type: ignore[misc]
            if step is None or not there or len(found := sorted(workers(run))) < 2:
                break
            dead = set(found)
            time.sleep(rng.random() * 0.1)
            os.kill(rng.choice(found), signal.SIGKILL)
            reached.append("SIGKILL")
        ended = run.wait()
        wrong = f"exit status {ended.status}: {ended.printed[-1000:]}" if ended.status else None
        return reached, wrong or difference(folder, whole[name])

    return several_runs(options, disturb)


def workers(run: Process) -> set[int]:
    """Ids of the processes that torchrun has started."""
    pid = run.process.pid
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return {int(c) for c in children if b"hydra.run.dir" in Path(f"/proc/{c}/cmdline").read_bytes()}
    except FileNotFoundError:  # ended meanwhile
        return set()


def slurm(work: Path, options: argparse.Namespace) -> Found:
    """Preempts, requeues and kills jobs of a Slurm of one node."""
    rng, ways, whole = random.Random(options.seed), itertools.cycle(WAYS), dict[str, Path]()
    with start_slurm(work / "slurm") as cluster:

        def disturb(number: int, name: str, times: int) -> tuple[list[str], str | None]:
            if name not in whole:
                whole[name] = undisturbed(work, name)
            folder, reached = work / f"job-{number}", list[str]()
            job = submit(cluster, work, name, folder)
            for _ in range(times):
                step = later_step(folder, rng)
                until(lambda step=step: step is None or last_step(folder) >= step or is_over(folder), 600)  # type: ignore[misc]
                time.sleep(rng.random() * 0.1)
                if step is None or is_over(folder) or cluster.job(job)["JobState"] != "RUNNING":
                    break
                reached.append(next(ways))
                job = disturb_job(cluster, job, reached[-1], lambda: submit(cluster, work, name, folder))
            state = cluster.wait(job, "COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", seconds=600)
            printed = folder.with_suffix(".log").read_text()[-1000:]
            wrong = None if state == "COMPLETED" else f"{state}: {printed}"
            return reached, wrong or difference(folder, whole[name])

        return several_runs(options, disturb)


def is_over(folder: Path) -> bool:
    """Whether the run in a folder has ended, in whatever way."""
    try:
        return results.read_results(folder)["status"] in ("completed", "failed")
    except FileNotFoundError:
        return False


def submit(cluster: Slurm, work: Path, name: str, folder: Path) -> str:
    """Submits a run of `METHODS` to the lower partition and returns the number of its job."""
    environment = ["env", "OMP_NUM_THREADS=1", f"SSL_ZOO_CACHE={work / 'cache'}", f"PYTHONPATH={ROOT}"]
    command = [*environment, sys.executable, str(ROOT / "run.py"), *METHODS[name].split(), f"hydra.run.dir={folder}"]
    options = ["--parsable", "--requeue", "--partition=low", "--cpus-per-task=2", "--open-mode=append"]
    places = [f"--output={folder.with_suffix('.log')}", f"--chdir={work}"]
    return cluster.call("sbatch", *options, *places, f"--wrap=exec {shlex.join(command)}")


def disturb_job(cluster: Slurm, job: str, way: str, submit_again: Callable[[], str]) -> str:
    """Disturbs a running job in one of `WAYS`; returns the number of the job that goes on."""
    if way == "SIGKILL":
        cluster.call("scancel", "--signal=KILL", "--full", job)
        cluster.wait(job, "FAILED", "CANCELLED", "COMPLETED")
        return submit_again()
    if way == "preempted":
        cluster.call("sbatch", "--partition=high", "--cpus-per-task=2", "--output=/dev/null", "--wrap=true")
    else:
        cluster.call("scontrol", "requeue", job)
    cluster.start_again(job)
    return job
