"""What Slurm and torchrun tell a process: its rank, its job, and a name that all processes of its run share.

No torch is imported unless torchrun started the process.
"""

import hashlib
import logging
import os
import secrets
import signal
import subprocess
import time
from collections.abc import Sequence
from typing import NamedTuple

log = logging.getLogger(__name__)

REQUEUE_SIGNALS = (signal.SIGUSR1, signal.SIGUSR2)
"""Announce the end of a job: `sbatch --signal=USR1@120`. SIGTERM does not: preemption and `scancel` send it alike."""


class SlurmJob(NamedTuple):
    """The Slurm job that this process belongs to.

    Attributes:
        id: as `scontrol` takes it; "12_3" for task 3 of array 12.
        is_batch: whether it was submitted by `sbatch`, so that it can be requeued.
        restarts: how often it was requeued.
    """

    id: str
    is_batch: bool
    restarts: int


def slurm_job() -> SlurmJob | None:
    """Returns the job of this process, None outside of Slurm and in a shell of `srun --pty bash` or `salloc`.

    Lightning tells such shells by the same two job names.
    """
    if "SLURM_JOB_ID" not in os.environ or os.environ.get("SLURM_JOB_NAME") in ("bash", "interactive"):
        return None
    array = [os.environ.get(key) for key in ("SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID")]
    return SlurmJob(
        id="_".join(array) if None not in array else os.environ["SLURM_JOB_ID"],  # type: ignore[arg-type]
        is_batch=os.environ.get("ENVIRONMENT") == "BATCH",
        restarts=int(os.environ.get("SLURM_RESTART_COUNT") or 0),
    )


def started_processes() -> int:
    """Returns how many processes torchrun or Slurm started for this run; 1 if Lightning starts them."""
    return int(os.environ.get("WORLD_SIZE") or (slurm_job() and os.environ.get("SLURM_NTASKS")) or 1)


def global_rank() -> int:
    """Returns the rank of this process, by the variables that Lightning reads; 0 before processes are started."""
    given = (os.environ.get(key) for key in ("RANK", "LOCAL_RANK", "SLURM_PROCID"))
    return int(next((rank for rank in given if rank), 0))


def has_agent() -> bool:
    """Whether torchrun started this process."""
    return os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"


def is_started_by_srun() -> bool:
    """Whether srun started this process as one of several."""
    return slurm_job() is not None and os.environ.get("SLURM_NTASKS", "1") != "1" and "SLURM_STEP_ID" in os.environ


def set_tasks_per_node() -> None:
    """Sets the variable without which Lightning refuses the tasks of `srun --ntasks=2`."""
    tasks, nodes = int(os.environ["SLURM_NTASKS"]), int(os.environ.get("SLURM_NNODES", 1))
    os.environ.setdefault("SLURM_NTASKS_PER_NODE", str(tasks // nodes))


def check_tasks_were_started() -> None:
    """Raises ValueError in a Slurm job of several tasks whose command was not given to srun."""
    tasks = os.environ.get("SLURM_NTASKS", "1")
    if slurm_job() and tasks != "1" and not is_started_by_srun() and not has_agent():
        raise ValueError(
            f"SLURM_NTASKS={tasks}: this job has {tasks} tasks, and this command starts one, which would wait for the "
            "others. Start it by srun, as in `srun python run.py ...`, or ask for --ntasks=1"
        )


def share_run_id(arguments: Sequence[str]) -> None:
    """Sets SSL_ZOO_RUN_ID, which child processes inherit, to the same text in all processes of a run.

    It stays the same when Slurm requeues the job or torchrun starts the processes again.

    Args:
        arguments: the command line, which tells the runs of one Slurm job apart.
    """
    if "SSL_ZOO_RUN_ID" in os.environ:
        return
    os.environ["SSL_ZOO_RUN_ID"] = _shared_id(arguments) or secrets.token_hex(2)


def run_name() -> str:
    """Returns where in `outputs` the folder of a run is: `<date>/<time>-<id>`, or the id that processes share."""
    run_id = os.environ["SSL_ZOO_RUN_ID"]
    return run_id if slurm_job() or has_agent() else f"{_now()}-{run_id}"


def is_folder_shared() -> bool:
    """Whether `run_name` is the same in all processes of this run."""
    return started_processes() == 1 or slurm_job() is not None or has_agent()


def requeue(number: int, wanted: bool | str) -> None:
    """Has Slurm start this job again, if a signal announced its end; call it last, since Slurm then ends the job.

    Args:
        number: the signal that ended the run.
        wanted: `trainer.requeue`.
    """
    job = slurm_job()
    if job is None or not job.is_batch or wanted is False or number not in REQUEUE_SIGNALS:
        return
    try:
        command = ["scontrol", "requeue", job.id]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        log.warning("job %s is not requeued: %s", job.id, error)
        return
    if done.returncode:
        log.warning("job %s is not requeued: %s", job.id, " ".join(done.stderr.split()))
    else:
        log.info("job %s is requeued", job.id)


def check_requeue(wanted: bool | str) -> None:
    """Raises ValueError for `trainer.requeue=true` where nothing can be requeued."""
    job = slurm_job()
    if wanted is True and (job is None or not job.is_batch):
        raise ValueError(
            "trainer.requeue=true: this is no job of Slurm's sbatch. Submit it, or give trainer.requeue=auto, which "
            "requeues where it can"
        )


def describe_job() -> dict[str, str | int]:
    """Returns what results.json says of the Slurm job, {} outside of Slurm."""
    job = slurm_job()
    return {} if job is None else {"slurm_job": job.id, "slurm_restarts": job.restarts}


def _now() -> str:
    return time.strftime("%Y-%m-%d/%H-%M-%S")


def _shared_id(arguments: Sequence[str]) -> str | None:
    """Returns an id on which the processes of a run agree; None if no other process was started."""
    if (job := slurm_job()) is not None:
        return f"slurm-{job.id}-{hashlib.sha256(chr(0).join(arguments).encode()).hexdigest()[:4]}"
    if not has_agent():
        return None
    from torch.distributed import TCPStore

    store = TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False)
    # All propose one, and the first is everybody's.
    first: bytes = store.compare_set("ssl_zoo/run_id", "", f"{_now()}-{secrets.token_hex(2)}")
    return first.decode()
