"""What launchers share whose jobs are command lines; tests/sweep/test_launcher.py and test_slurm.py run them."""

from pathlib import Path

import pytest
from hydra.core.utils import JobStatus

from ssl_zoo.report import results
from ssl_zoo.sweep.commands import CommandLauncher
from ssl_zoo.sweep.job import Job


class Launcher(CommandLauncher):
    def launch(self, job_overrides, initial_job_idx):  # type: ignore[no-untyped-def]
        raise NotImplementedError


def completed(folder: Path, **metrics: float) -> Job:
    known = {"method": "m", "data": "d", "budget": {"kind": "epochs", "value": 1}, "metrics": metrics}
    results.write_results(folder, results.empty_results("completed", **known))
    return Job("[1/1]", folder, [], {"overrides": ["seed=0"]})


def test_a_completed_job_returns_its_objective(tmp_path: Path) -> None:
    job = completed(tmp_path, **{"knn/top1": 0.5, "linear/top1": float("nan")})
    job.status = "completed"
    assert Launcher("m").end_of(job).return_value is None
    job.objective = "knn/top1"
    end = Launcher("m").end_of(job)
    assert (end.status, end.return_value) == (JobStatus.COMPLETED, 0.5)


@pytest.mark.parametrize(
    ("objective", "message"), [("linear/top1", "is not finite"), ("knn/top5", "was not measured. There are: knn/top1")]
)
def test_a_job_without_its_objective_failed(tmp_path: Path, objective: str, message: str) -> None:
    job = completed(tmp_path, **{"knn/top1": 0.5, "linear/top1": float("nan")})
    job.status, job.objective = "completed", objective
    end = Launcher("m").end_of(job)
    assert end.status == JobStatus.FAILED
    with pytest.raises(ValueError, match=message):
        end.return_value  # noqa: B018


def test_results_that_could_not_be_written_are_handed_on(tmp_path: Path) -> None:
    job = Job("[1/1]", tmp_path, [], {"overrides": []}, is_written=False, status="failed", record={"status": "failed"})
    assert Launcher("m").end_of(job).unwritten == {"status": "failed", "folder": tmp_path}


def test_a_job_inherits_nothing_of_another_run(monkeypatch: pytest.MonkeyPatch) -> None:
    dropped = ("RANK", "WORLD_SIZE", "SSL_ZOO_RUN_ID", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_STEP_ID",
               "SLURM_NTASKS_PER_NODE")  # fmt: skip
    kept = ("SLURM_JOB_ID", "SLURM_CONF", "HOME")
    for key in (*dropped, *kept):
        monkeypatch.setenv(key, "1")
    environment = Launcher("m").cleaned_environment()
    assert not environment.keys() & set(dropped)
    assert environment.keys() >= set(kept)
