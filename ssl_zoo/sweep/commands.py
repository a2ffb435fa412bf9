"""What launchers share whose jobs are command lines: `python -m <module> <overrides> hydra.run.dir=<sweep>/<job>`.

A job is completed when its results.json says so; a sweep that is repeated with the same `hydra.sweep.dir` runs only the
jobs that are not completed.
"""

import contextlib
import os
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import CompactHydraException
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict
from yaml import YAMLError

from ssl_zoo.config import quote
from ssl_zoo.report import results
from ssl_zoo.sweep.job import Job

# Settings of the sweep itself; a job gets its own.
_SWEEP_SETTINGS = re.compile(r"[+~]*hydra[./](launcher|sweeper|sweep|run|mode)\b")
# Environment variables of a distributed run or of one job; inherited, they would merge jobs into one run.
_PER_RUN_VARIABLES = re.compile(
    r"((LOCAL|NODE|GROUP|ROLE)_)?RANK|((LOCAL|GROUP|ROLE)_)?WORLD_SIZE|MASTER_\w+|TORCHELASTIC_\w+|PL_\w+"
    r"|WANDB_RUN_ID|SSL_ZOO_RUN_ID|SLURM_(NTASKS|NPROCS|PROCID|LOCALID|STEP\w+|\w*TASKS_PER_NODE)"
)


@dataclass
class JobEnd(JobReturn):
    """How a job of a sweep ended. Its `return_value` is the objective, see `objective` in conf/config.yaml.

    Attributes:
        title: name of the job in messages.
        unwritten: its results with their "folder", if they could not be written there.
    """

    title: str = ""
    unwritten: dict[str, Any] | None = None


class CommandLauncher(Launcher):
    """Base of the launchers whose jobs are command lines.

    Args:
        module: run as `python -m <module>`.
    """

    def __init__(self, module: str):
        self.module = module

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Checks the settings; called by Hydra before `launch`."""
        self.context = hydra_context
        self.config = config
        if OmegaConf.select(config, "hydra.sweeper.max_batch_size") is not None:
            # With it Hydra's sweeper skips all batches after a failed job.
            raise CompactHydraException("hydra.sweeper.max_batch_size: use hydra.launcher.jobs=<how many at once>")

    @property
    def sweep(self) -> Path:
        """The folder of the sweep."""
        return Path(self.config.hydra.sweep.dir)

    def plan(self, job_overrides: Sequence[Sequence[str]], first: int) -> list[Job]:
        """Returns a job, with its folder and command, for each list of overrides; the first has number `first`."""
        shared = set.intersection(*map(set, job_overrides)) if len(job_overrides) > 1 else set()
        jobs = []
        for number, overrides in enumerate(map(list, job_overrides), start=first):
            config = self.context.config_loader.load_sweep_config(self.config, overrides)
            with open_dict(config):
                config.hydra.job.id = config.hydra.job.num = number
            HydraConfig.instance().set_config(config)  # the folder name may refer to it
            folder = self.sweep / str(config.hydra.sweep.subdir)
            choices = {key.split("@")[0]: choice for key, choice in config.hydra.runtime.choices.items()}
            known = {name: choices.get(name) for name in ("experiment", "method", "backbone", "data")}
            seed = OmegaConf.select(config, "seed")
            known |= {"seed": seed if isinstance(seed, int) else None, "overrides": overrides}
            name = " ".join(text for text in overrides if text not in shared)
            title = f"[{number + 1}/{first + len(job_overrides)}] {name}"
            job = Job(title, folder, self._command(number, overrides, folder), known, number)
            job.objective = OmegaConf.select(config, "objective")
            jobs.append(job)
        return jobs

    def cleaned_environment(self) -> dict[str, str]:
        """Returns the environment without what belongs to one run."""
        return {key: value for key, value in os.environ.items() if not _PER_RUN_VARIABLES.fullmatch(key)}

    def job_variables(self) -> dict[str, str]:
        """Returns the environment variables that the jobs need besides those of this process."""
        variables = {
            "SSL_ZOO_SWEEP": sweep_name(self.sweep),
            "PYTHONUNBUFFERED": "1",  # otherwise output arrives late, and a killed job's last lines are lost
        }
        root = Path(__file__).resolve().parents[2]
        if root.name not in ("site-packages", "dist-packages"):  # a source checkout; the working folder may be another
            variables["PYTHONPATH"] = os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH")]))
        return variables

    def end_of(self, job: Job) -> JobEnd:
        """Returns how a job that has ended did, for the sweeper."""
        end = JobEnd(job.known["overrides"], status=JobStatus.FAILED, title=job.title)
        end.return_value = RuntimeError(f"{job.title}: {job.status}")
        if job.status == "completed":
            try:
                end.return_value = results.objective_value(job.folder, job.objective)
                end.status = JobStatus.COMPLETED
            except (OSError, ValueError) as error:
                end.return_value = error
        if job.record is not None and not job.is_written:
            end.unwritten = {**job.record, "folder": job.folder}
        return end

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


def sweep_name(sweep: Path) -> str:
    """Returns the name of a sweep, wandb's group of its runs: the last two parts of its folder."""
    return "-".join(sweep.resolve().parts[-2:])


def check_folders(sweep: Path, jobs: list[Job]) -> None:
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
def lock_sweep(sweep: Path) -> Iterator[None]:
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
