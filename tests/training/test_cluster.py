"""What Slurm and torchrun say by the environment, and when a job is requeued."""

import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from torch.distributed import TCPStore

from ssl_zoo.training import cluster
from tests.slurm_cluster import free_ports

BATCH = {"SLURM_JOB_ID": "12", "SLURM_JOB_NAME": "mine.sh", "ENVIRONMENT": "BATCH"}
STEP = BATCH | {"SLURM_NTASKS": "4", "SLURM_NNODES": "2", "SLURM_STEP_ID": "0", "SLURM_PROCID": "3"}


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for key in list(os.environ):
        if key.startswith(("SLURM_", "TORCHELASTIC_", "SSL_ZOO_RUN_ID")) or key in ("RANK", "LOCAL_RANK", "WORLD_SIZE"):
            monkeypatch.delenv(key)


def put(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    for key, value in variables.items():
        monkeypatch.setenv(key, value)


def shared_id(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> str:
    monkeypatch.delenv("SSL_ZOO_RUN_ID", raising=False)
    cluster.share_run_id(arguments)
    return os.environ["SSL_ZOO_RUN_ID"]


def test_without_slurm_there_is_no_job(monkeypatch: pytest.MonkeyPatch) -> None:
    assert cluster.slurm_job() is None
    assert cluster.describe_job() == {}
    assert (cluster.started_processes(), cluster.global_rank()) == (1, 0)
    first, second = shared_id(monkeypatch), shared_id(monkeypatch)
    assert len({first, second}) == 2
    assert cluster.run_name().endswith(f"-{second}")
    put(monkeypatch, BATCH | {"SLURM_JOB_NAME": "bash"})  # a shell in which one works
    assert cluster.slurm_job() is None


def test_a_job_keeps_its_run_when_it_is_requeued(monkeypatch: pytest.MonkeyPatch) -> None:
    put(monkeypatch, BATCH)
    assert cluster.slurm_job() == ("12", True, 0)
    before = shared_id(monkeypatch, "method=byol")
    put(monkeypatch, {"SLURM_RESTART_COUNT": "2"})
    assert shared_id(monkeypatch, "method=byol") == before == cluster.run_name()
    assert before.startswith("slurm-12-")
    assert shared_id(monkeypatch, "method=moco") != before  # the next command of the same script
    assert cluster.describe_job() == {"slurm_job": "12", "slurm_restarts": 2}
    put(monkeypatch, {"SLURM_ARRAY_JOB_ID": "11", "SLURM_ARRAY_TASK_ID": "3"})
    assert cluster.describe_job()["slurm_job"] == "11_3"


def test_several_tasks_need_srun(monkeypatch: pytest.MonkeyPatch) -> None:
    put(monkeypatch, STEP)
    cluster.check_tasks_were_started()
    assert (cluster.started_processes(), cluster.global_rank(), cluster.is_started_by_srun()) == (4, 3, True)
    cluster.set_tasks_per_node()
    assert os.environ["SLURM_NTASKS_PER_NODE"] == "2"
    monkeypatch.delenv("SLURM_STEP_ID")
    with pytest.raises(ValueError, match=r"this job has 4 tasks.*Start it by srun"):
        cluster.check_tasks_were_started()


def test_torchruns_processes_agree_on_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    (port,) = free_ports(1)
    store = TCPStore("127.0.0.1", port, is_master=True, wait_for_workers=False)
    agent = {"TORCHELASTIC_USE_AGENT_STORE": "True", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port)}
    put(monkeypatch, agent | {"WORLD_SIZE": "2"})
    first = shared_id(monkeypatch)
    assert first == shared_id(monkeypatch) == cluster.run_name()
    assert cluster.is_folder_shared()
    monkeypatch.delenv("TORCHELASTIC_USE_AGENT_STORE")  # others start processes too
    assert not cluster.is_folder_shared()


@pytest.mark.parametrize(
    ("variables", "number", "wanted", "is_requeued"),
    [
        (BATCH, signal.SIGUSR1, "auto", True),
        (BATCH, signal.SIGUSR2, True, True),
        (BATCH, signal.SIGUSR1, False, False),
        (BATCH, signal.SIGTERM, "auto", False),  # of scancel too; Slurm itself requeues what it preempts
        (BATCH | {"ENVIRONMENT": ""}, signal.SIGUSR1, "auto", False),  # srun alone
        ({}, signal.SIGUSR1, "auto", False),
    ],
)
def test_a_job_is_requeued_when_its_time_is_over(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], number: int, wanted: Any, is_requeued: bool
) -> None:
    called = []
    done = subprocess.CompletedProcess([], 0, "", "")
    monkeypatch.setattr(subprocess, "run", lambda command, **_: called.append(command) or done)
    put(monkeypatch, variables)
    cluster.requeue(number, wanted)
    assert called == ([["scontrol", "requeue", "12"]] if is_requeued else [])


def test_a_refused_requeue_is_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    put(monkeypatch, BATCH | {"PATH": str(tmp_path)})
    cluster.requeue(signal.SIGUSR1, "auto")
    (tmp_path / "scontrol").write_text("#!/bin/sh\necho Requested operation is disabled >&2\nexit 1\n")
    (tmp_path / "scontrol").chmod(0o755)
    cluster.requeue(signal.SIGUSR1, "auto")
    first, second = (record.message for record in caplog.records)
    assert "job 12 is not requeued: [Errno 2]" in first
    assert second == "job 12 is not requeued: Requested operation is disabled"


def test_requeue_true_needs_a_batch_job(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster.check_requeue("auto")
    with pytest.raises(ValueError, match="this is no job of Slurm's sbatch"):
        cluster.check_requeue(True)
    put(monkeypatch, BATCH)
    cluster.check_requeue(True)
