"""What is submitted, and what is said where there is no Slurm; tests/test_slurm.py submits it to a real one."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from ssl_zoo.report import results
from tests.conftest import Ended

SLURM = ("-m", "hydra/launcher=slurm", "hydra.sweep.dir=a sweep")
# It says what the queue holds, keeps the script, and may refuse it.
FAKE = """#!/bin/bash
case $(basename $0) in
squeue) cat "$FAKE_SLURM/queue";;
sbatch) cp "$2" "$FAKE_SLURM/script"; echo "invalid partition" >&2; echo 7; test ! -e "$FAKE_SLURM/refuses";;
esac
"""


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with commands that stand for Slurm's; the file `queue` is what squeue prints."""
    place = tmp_path / "bin"
    place.mkdir()
    for name in ("squeue", "sbatch"):
        (place / name).write_text(FAKE)
        (place / name).chmod(0o755)
    (place / "queue").touch()
    monkeypatch.setenv("FAKE_SLURM", str(place))
    monkeypatch.setenv("PATH", f"{place}{os.pathsep}{os.environ['PATH']}")
    return place


def test_the_script_says_what_was_asked_for(cli: Callable[..., Ended], fake: Path, tmp_path: Path) -> None:
    keys = {
        "partition": "gpu", "account": "us", "gres": "gpu:4", "time": "60", "mem": "32G", "cpus": 8, "nodes": 2,
        "tasks": 4, "jobs": 3, "extra": "[--exclusive]", "requeue": "false",
    }  # fmt: skip
    settings = [f"hydra.launcher.{key}={value}" for key, value in keys.items()]
    done = cli(*SLURM, "seed=0,1", "name=it's mine", *settings)
    assert done.status == 0, done.err
    assert "seed=0  submitted as 7_0  ->  a sweep/0" in done.out
    script = (fake / "script").read_text()
    assert script == (tmp_path / "a sweep" / "slurm" / "submit.sh").read_text()
    lines = [line.removeprefix("#SBATCH ") for line in script.splitlines() if line.startswith("#SBATCH ")]
    for line in (
        "--partition=gpu", "--account=us", "--gres=gpu:4", "--time=60", "--mem=32G", "--cpus-per-task=8", "--nodes=2",
        "--ntasks-per-node=4", "--signal=USR1@120", "--array=0,1%3", "--exclusive", "--no-requeue",
    ):  # fmt: skip
        assert line in lines
    assert "export SRUN_CPUS_PER_TASK=8" in script
    # The shell gives the job the words that it was given.
    ask = script.replace("srun --kill-on-bad-exit=1", "printf '%s\\n'").replace('>>"$folder/output.log" 2>&1', "; exit")
    environment = os.environ | {"SLURM_ARRAY_TASK_ID": "1"}
    words = subprocess.run(["bash", "-c", ask], env=environment, capture_output=True, text=True, check=True).stdout
    assert "seed=1\nname='it\\'s mine'\n" in words
    assert words.endswith("hydra.run.dir='a sweep/1'\n")


def test_what_is_completed_or_queued_is_not_submitted(cli: Callable[..., Ended], fake: Path, tmp_path: Path) -> None:
    known = {"method": "simclr", "data": "digits", "budget": {"kind": "epochs", "value": 1}}
    (tmp_path / "a sweep" / "1").mkdir(parents=True)
    results.write_results(tmp_path / "a sweep" / "1", results.empty_results("completed", **known))
    (fake / "queue").write_text(f"2|{tmp_path / 'a sweep'}\n0|{tmp_path / 'another'}\nN/A|{tmp_path / 'a sweep'}\n")
    done = cli(*SLURM, "seed=0,1,2,3")
    assert done.status == 0, done.err
    assert "--array=0,3\n" in (fake / "script").read_text()
    assert "seed=1  skipped, completed before" in done.out
    assert "seed=2  is in the queue" in done.out


def test_a_refused_sweep_leaves_no_results(cli: Callable[..., Ended], fake: Path, tmp_path: Path) -> None:
    (fake / "refuses").touch()
    refused = cli(*SLURM, "seed=0,1")
    assert (refused.status, refused.err) == (2, "error: hydra/launcher=slurm: sbatch: invalid partition\n")
    assert not list(tmp_path.rglob("results.json"))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("hydra.launcher.jobs=0", "hydra.launcher.jobs=0: give 1 or more"),
        (
            "hydra.launcher.extra=[exclusive]",
            "hydra.launcher.extra: 'exclusive' is no option of sbatch",
        ),
        ("seed=3", "hydra/launcher=slurm: there is no squeue here"),
    ],
)
def test_settings_that_cannot_be(
    cli: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch, setting: str, message: str
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    refused = cli(*SLURM, setting)
    assert refused.status == 2
    assert message in refused.err


def test_a_launcher_that_is_not_installed_says_what_brings_it(cli: Callable[..., Ended]) -> None:
    for choice, said in (
        ("hydra/launcher=rq", "hydra/launcher=rq: not installed. Install it: pip install hydra-rq-launcher"),
        ("hydra/sweeper=ax", "hydra/sweeper=ax: not installed. Install it: pip install hydra-ax-sweeper"),
        ("hydra/launcher=slrum", "hydra/launcher=slrum: no such choice, did you mean slurm?"),
    ):
        refused = cli("-m", choice)
        assert refused.status == 2
        assert said in refused.err
