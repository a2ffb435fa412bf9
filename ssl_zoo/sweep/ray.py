"""`hydra/launcher=ray`: runs each job of a sweep as a task of Ray, on a cluster or on this machine.

Ray decides where and when a job runs, and starts a task again whose worker or machine is lost. The job's command then
goes on from its last checkpoint, since its folder, which all machines must see, is the same.
"""

from typing import Any

from hydra.errors import CompactHydraException
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from ssl_zoo.report import results
from ssl_zoo.sweep.job import OUTPUT_LOG, Job, print_line
from ssl_zoo.sweep.launcher import ProcessLauncher
from ssl_zoo.sweep.record import record_end

WAIT_SECONDS = 0.5
"""Interval between two looks at the tasks, and at the signals that have been received."""


class RayLauncher(ProcessLauncher):
    """Runs each job of a sweep as a task of Ray.

    Args:
        module: run as `python -m <module>`.
        address: of a cluster, such as "auto"; None for RAY_ADDRESS, or else this machine alone.
        cpus: cores per job.
        gpus: GPUs per job, which Ray chooses.
        retries: how often a job is started again whose worker is lost.
    """

    def __init__(self, module: str, address: str | None, cpus: float, gpus: float, retries: int):
        super().__init__(module, jobs=1, timeout=None, grace=0.0)
        self.address = address
        self.resources = {"num_cpus": cpus, "num_gpus": gpus, "max_retries": retries}

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Checks the settings; called by Hydra before `launch`."""
        super().setup(hydra_context=hydra_context, task_function=task_function, config=config)
        try:
            import ray  # noqa: F401
        except ImportError as error:
            raise CompactHydraException("hydra/launcher=ray: not installed. Install it: pip install ray") from error
        for key, value in self.resources.items():
            if value < 0:
                name = key.removeprefix("num_").removeprefix("max_")
                raise CompactHydraException(f"hydra.launcher.{name}={value}: give 0 or more")

    def _run(self, jobs: list[Job], environment: dict[str, str], received: list[int]) -> None:
        """Runs the jobs until all have ended; after a signal they are asked to save."""
        import ray

        ray.init(self.address, include_dashboard=False, log_to_driver=False, logging_level="warning")
        try:
            task = ray.remote(**self.resources)(_task())
            variables = {key: value for key, value in environment.items() if not key.startswith(("RAY_", "CUDA_"))}
            running: dict[Any, Job] = {}
            for job in jobs:
                if results.is_complete(job.folder):
                    job.status = "completed"
                    print_line(f"{job.title}  skipped, completed before  {job.folder}")
                    continue
                log = str((job.folder / OUTPUT_LOG).resolve())
                print_line(f"{job.title}  given to Ray  ->  {job.folder}")
                running[task.remote(job.command, variables, log)] = job
            is_stopping = False
            while running:
                for ended in ray.wait(list(running), timeout=WAIT_SECONDS)[0]:
                    _conclude(running.pop(ended), ended)
                if received and not is_stopping:
                    is_stopping = True
                    for waiting in running:
                        ray.cancel(waiting, force=False)
        finally:
            ray.shutdown()


def _task() -> Any:
    """The function that a worker calls; made in a function, so that Ray sends its code and workers need no ssl_zoo."""
    import os

    place = os.getcwd()

    def run(command: list[str], variables: dict[str, str], log: str) -> int:
        """Runs the command; returns its exit status."""
        import ctypes
        import os
        import signal
        import subprocess
        import sys

        def end_with_worker() -> None:  # else the task that Ray starts again would find its folder taken
            if sys.platform == "linux":
                ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG

        os.makedirs(os.path.dirname(log), exist_ok=True)
        with open(log, "ab") as file:
            process = subprocess.Popen(
                command,
                cwd=place,
                env=os.environ | variables,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=end_with_worker,
            )
            try:
                return process.wait()
            except KeyboardInterrupt:  # the sweep was stopped: `ray.cancel`
                process.terminate()
                return process.wait()

    return run


def _conclude(job: Job, ended: Any) -> None:
    """Sets the status of a job whose task has ended, and records it if the job could not."""
    import ray

    try:
        code = ray.get(ended)
        message = f"exit code {code}"
    except ray.exceptions.RayError as error:  # its worker was lost more often than `retries`, or it was cancelled
        code, message = 1, str(error).splitlines()[0]
    try:
        record_end(job.folder, code if code >= 0 else 128 - code)
        job.status = results.read_results(job.folder)["status"]
    except (OSError, ValueError):
        job.status = "failed"
        job.record = results.empty_results("failed", **job.known, error={"type": message, "message": message})
        job.folder.mkdir(parents=True, exist_ok=True)
        results.write_results(job.folder, job.record)
    print_line(f"{job.title}  {job.status}  {job.folder / OUTPUT_LOG}")
