"""On a real Slurm: sweeps as job arrays, preemption and requeueing, runs of several tasks."""

import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from benchmarks.small_runs import METHODS, difference, last_step, weights
from ssl_zoo.report import results, tables
from tests.conftest import Ended
from tests.slurm_cluster import NoSlurm, Slurm, free_ports, start_slurm, until
from tests.sweep.test_launcher import CONFIG, ROOT, STUB, make_place

pytestmark = pytest.mark.xdist_group("slurm")


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    try:
        with start_slurm(tmp_path_factory.mktemp("slurm") / "one") as cluster:
            yield cluster
    except NoSlurm as reason:
        if "SSL_ZOO_NEEDS_SLURM" in os.environ:
            raise
        pytest.skip(str(reason))


def finish_all(slurm: Slurm) -> None:
    until(lambda: not slurm.call("squeue", "--noheader"), 300, lambda: slurm.call("squeue"))


def test_a_sweep_is_an_array_and_the_same_command_runs_what_failed(slurm: Slurm, tmp_path: Path) -> None:
    place = make_place(tmp_path)
    (place / "conf" / "config.yaml").write_text(CONFIG.replace("grace: 0.5", "partition: low, time: 5"))

    def submit() -> list[str]:
        words = ["hydra/launcher=slurm", "kind=completes,raises,killed", "seed=0,1", "measured=true"]
        command = [sys.executable, "app.py", "-m", *words]
        environment = slurm.environment | {"PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stdout.endswith("queued: python -m ssl_zoo.report sweep\n")
        return [line.partition("  ")[2].partition("  ")[0] for line in done.stdout.splitlines() if line[0] == "["]

    def statuses() -> list[tuple[str, str]]:
        runs = {run["folder"].name: run for run in tables.load_runs([place / "sweep"])}
        return [(runs[str(n)]["status"], runs[str(n)].get("error", {}).get("type", "")) for n in range(6)]

    slurm.call("scontrol", "update", "PartitionName=low", "State=DOWN")  # so that all wait
    first = submit()
    array = first[0].removeprefix("submitted as ").removesuffix("_0")
    assert first == [f"submitted as {array}_{n}" for n in range(6)]
    assert statuses() == [("interrupted", "Queued")] * 6
    assert submit() == ["is in the queue"] * 6
    slurm.call("scontrol", "update", "PartitionName=low", "State=UP")
    finish_all(slurm)
    completed, failed, killed = ("completed", ""), ("failed", "exit code 1"), ("failed", "killed by SIGKILL")
    assert statuses() == [completed, completed, failed, failed, killed, killed]
    assert "RuntimeError: boom" in (place / "sweep" / "2" / "output.log").read_text()
    (place / "stub.py").write_text(STUB.replace('raise RuntimeError("boom")', "write()"))
    again = submit()
    assert again[:2] == ["skipped, completed before"] * 2
    assert [line.rpartition("_")[2] for line in again[2:]] == ["2", "3", "4", "5"]
    finish_all(slurm)
    assert statuses() == [completed] * 4 + [killed] * 2


HOLD = """
import time
from pathlib import Path
from lightning.pytorch import Callback

class Hold(Callback):  # stays at a step as long as the file exists
    def __init__(self, file: str):
        self.file = Path(file)

    def on_train_batch_end(self, trainer, *_):
        while self.file.exists() and self.file.read_text() == str(trainer.global_step):
            self.file.with_suffix(".held").touch()
            time.sleep(0.02)
"""


class Held:
    """A run that is submitted as a sweep of one and stays at a step of our choice."""

    def __init__(self, slurm: Slurm, cli: Callable[..., Ended], place: Path, name: str):
        self.slurm, self.folder, self.file = slurm, place / name / "0", place / f"{name}.hold"
        (place / "hold.py").write_text(HOLD)
        self.run = ("seed=0", *METHODS["byol"].split(), "logger=wandb", "trainer.checkpoint_every=1000")
        callback = f"trainer.callbacks={{hold:{{_target_:hold.Hold,file:{self.file}}}}}"
        launcher = [f"hydra.launcher.{key}" for key in ("partition=low", "time=30", "signal=USR1@45")]
        self.command = ("-m", "hydra/launcher=slurm", *launcher, f"hydra.sweep.dir={place / name}", callback)
        self.cli = cli

    def submit(self, step: int) -> str:
        """Submits it, to stay at `step`; returns the number of the array."""
        self.file.write_text(str(step))
        done = self.cli(*self.command, *self.run)
        assert done.status == 0, done.err
        return done.out.partition("submitted as ")[2].partition("_")[0]

    def until_held(self) -> None:
        until(self.file.with_suffix(".held").exists, 240, self.output)

    def until_it_says(self, text: str) -> None:
        until(lambda: text in self.output(), 120, self.output)

    def let_go(self) -> None:
        self.file.unlink()
        self.file.with_suffix(".held").unlink(missing_ok=True)

    def output(self) -> str:
        log = self.folder / "output.log"
        return log.read_text() if log.exists() else ""


@pytest.fixture
def held(
    slurm: Slurm, cli: Callable[..., Ended], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], Held]:
    for key in ("SLURM_CONF", "PATH", "LD_LIBRARY_PATH"):
        monkeypatch.setenv(key, slurm.environment[key])
    monkeypatch.setenv("OMP_NUM_THREADS", str(torch.get_num_threads()))
    monkeypatch.setenv("WANDB_MODE", "offline")
    return lambda name: Held(slurm, cli, tmp_path, name)


@pytest.mark.slow
def test_a_preempted_and_a_requeued_run_end_as_if_undisturbed(
    slurm: Slurm, held: Callable[[str], Held], cli: Callable[..., Ended], tmp_path: Path
) -> None:
    run, steps = held("sweep"), sorted(random.sample(range(2, 39), 2))
    array = run.submit(steps[0])
    run.until_held()
    (job,) = slurm.call("squeue", "--noheader", "--format=%A").split()
    # A job of a higher partition takes its place: Slurm sends SIGTERM and requeues it.
    slurm.call("sbatch", "--partition=high", "--cpus-per-task=2", "--output=/dev/null", "--wrap=true")
    run.until_it_says("SIGTERM: the step in progress is finished and saved")
    run.let_go()
    slurm.wait(job, "PENDING")
    assert last_step(run.folder) == steps[0]
    # Its time is soon over: Slurm sends SIGUSR1, and the run requeues itself.
    run.file.write_text(str(steps[1]))
    slurm.start_again(job)
    run.until_held()
    minutes = int(slurm.job(job)["RunTime"].split(":")[1]) + 2
    slurm.call("scontrol", "update", f"JobId={job}", f"TimeLimit={minutes}")
    run.until_it_says("SIGUSR1: the step in progress is finished and saved")
    run.let_go()
    slurm.wait(job, "PENDING")
    assert f"job {array}_0 is requeued" in run.output()
    assert last_step(run.folder) == steps[1]
    slurm.start_again(job, TimeLimit="30")
    ended = slurm.wait(job, "COMPLETED", "FAILED", "CANCELLED", seconds=240)
    assert ended == "COMPLETED", run.output() + slurm.log()
    record = results.read_results(run.folder)
    assert (record["environment"]["slurm_job"], record["environment"]["slurm_restarts"]) == (f"{array}_0", 2)
    wandb = (run.folder / "wandb_id").read_text()
    assert {path.name.rpartition("-")[2] for path in (run.folder / "wandb").glob("offline-run-*")} == {wandb}
    assert cli(*run.run, "logger=csv", f"hydra.run.dir={tmp_path / 'undisturbed'}").status == 0
    assert difference(run.folder, tmp_path / "undisturbed") is None


@pytest.mark.slow
def test_a_cancelled_run_saves_and_stays_cancelled(slurm: Slurm, held: Callable[[str], Held]) -> None:
    run = held("sweep")
    array = run.submit(5)
    run.until_held()
    slurm.call("scancel", array)
    run.until_it_says("SIGTERM: the step in progress is finished and saved")
    run.let_go()
    slurm.wait(array, "CANCELLED", "PENDING")
    finish_all(slurm)
    assert (slurm.job(array)["JobState"], slurm.job(array)["Restarts"]) == ("CANCELLED", "0")
    assert last_step(run.folder) == 5
    assert results.read_results(run.folder)["status"] == "interrupted"


@pytest.mark.slow
def test_two_tasks_of_slurm_or_torchrun_equal_one(
    slurm: Slurm, cli: Callable[..., Ended], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A small rate, since a ReLU input within rounding of 0 may fall on either side; AdamW would divide the rounding of
    # gradients that are zero by their size.
    words = METHODS["byol"].replace("budget.steps=40", "budget.steps=4").split()
    words += ["optimizer=sgd", "optimizer.lr=1e-3", "trainer.precision=32-true"]
    assert cli(*words, "hydra.run.dir=one").status == 0
    monkeypatch.delenv("SSL_ZOO_RUN_ID")
    python = [sys.executable, str(ROOT / "run.py"), *words, "trainer=ddp_cpu"]
    torchrun = [sys.executable, "-m", "torch.distributed.run"]
    (port,) = free_ports(1)
    nodes = ["--nnodes=2", "--nproc-per-node=1", "--rdzv-backend=c10d", f"--rdzv-endpoint=localhost:{port}"]
    commands = {
        "srun": [["srun", "--ntasks=2", *python]],
        "torchrun": [[*torchrun, "--nproc-per-node=2", *python[1:]]],
        "two agents": [[*torchrun, *nodes, *python[1:], "trainer.devices=1", "trainer.num_nodes=2"]] * 2,
    }
    expected = weights(tmp_path / "one")
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    for name, started in commands.items():
        place = tmp_path / name
        place.mkdir()
        env = slurm.environment | environment | {"PATH": slurm.environment["PATH"]} if name == "srun" else environment
        processes = [
            subprocess.Popen(command, cwd=place, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            for command in started
        ]
        try:
            said = [process.communicate(timeout=300)[0] for process in processes]
        finally:
            for process in processes:
                process.kill()
        assert [process.returncode for process in processes] == [0] * len(started), said
        (record,) = tables.load_runs([place])  # one folder for all processes
        assert (record["status"], record["environment"]["processes"]) == ("completed", 2)
        found = weights(record["folder"])
        for key, value in expected.items():
            assert torch.allclose(found[key], value, rtol=2e-5, atol=2e-5), f"{name}: {key}"
