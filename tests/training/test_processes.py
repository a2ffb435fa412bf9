"""A process of a run that dies ends the others in bounded time, and is named with its signal."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from lightning.pytorch.plugins.environments import LightningEnvironment
from lightning.pytorch.strategies.launchers.subprocess_script import _SubprocessScriptLauncher

from ssl_zoo.training import processes

SCRIPT = """
import os, signal, sys, time
from pathlib import Path
from types import SimpleNamespace
from lightning.pytorch.plugins.environments import LightningEnvironment
from lightning.pytorch.strategies.launchers.subprocess_script import _SubprocessScriptLauncher
from ssl_zoo.training import processes

processes.GRACE_SECONDS, folder, act = 0.5, Path(sys.argv[1]), sys.argv[2]
strategy = SimpleNamespace(launcher=None)
strategy.launcher = _SubprocessScriptLauncher(LightningEnvironment(), 2, 1)
trainer = SimpleNamespace(strategy=strategy, local_rank=int(os.environ.get("LOCAL_RANK", 0)))

def work():
    (folder / f"rank-{trainer.local_rank}").write_text(str(os.getpid()))
    while len(list(folder.glob("rank-*"))) < 2: time.sleep(0.01)
    if act == "raises":
        while (folder / "rank-1").exists(): time.sleep(0.01)
        raise RuntimeError("connection closed")
    while True: time.sleep(1)  # as one that waits in a collective

def died(death):
    print(f"{trainer.local_rank}: {death}", file=sys.stderr, flush=True)
    return 1

try:
    with processes.watch_processes(trainer, died):
        if trainer.local_rank:
            work()
        chosen = getattr(strategy, "_launcher")
        chosen.launch(work)
except processes.ProcessDied as death:
    sys.exit(died(death))
"""


def started(folder: Path, act: str) -> tuple[subprocess.Popen[str], list[int]]:
    script = folder / "script.py"
    script.write_text(SCRIPT)
    root = str(Path(__file__).parents[2])
    environment = {key: value for key, value in os.environ.items() if key not in ("LOCAL_RANK", "WORLD_SIZE")}
    process = subprocess.Popen(
        [sys.executable, str(script), str(folder), act],
        env=environment | {"PYTHONPATH": root},
        stderr=subprocess.PIPE,
        text=True,
    )
    ranks = [folder / f"rank-{rank}" for rank in (0, 1)]
    limit = time.monotonic() + 60
    while not all(rank.exists() and rank.read_text() for rank in ranks):
        assert time.monotonic() < limit, "did not start"
        assert process.poll() is None
        time.sleep(0.02)
    return process, [int(rank.read_text()) for rank in ranks]


@pytest.mark.parametrize(("act", "number"), [("waits", signal.SIGSEGV), ("raises", signal.SIGKILL)])
def test_a_dead_process_is_named_with_its_signal(tmp_path: Path, act: str, number: signal.Signals) -> None:
    process, (_, other) = started(tmp_path, act)
    os.kill(other, number)
    if act == "raises":
        (tmp_path / "rank-1").unlink()
    _, said = process.communicate(timeout=30)
    assert process.returncode == 1
    assert f"0: rank 1 of 2 (process {other}) was killed by {number.name}" in said
    assert ("as the system does when memory runs out" in said) == (number == signal.SIGKILL)


def test_no_process_outlives_the_first(tmp_path: Path) -> None:
    process, (first, _) = started(tmp_path, "waits")
    process.kill()
    _, said = process.communicate(timeout=30)  # the other one holds the pipe open as long as it lives
    assert f"1: rank 0 (process {first}), which started rank 1, is gone" in said


def test_an_exit_status_is_named_too() -> None:
    ended: Any = SimpleNamespace(returncode=3)
    assert processes._describe_exit(ended) == "ended with exit status 3, its own message is above"


def test_processes_started_by_others_are_left_to_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """torchrun and Slurm say themselves who has died."""

    class Torchrun(LightningEnvironment):
        @property
        def creates_processes_externally(self) -> bool:
            return True

    launcher = _SubprocessScriptLauncher(Torchrun(), 2, 1)
    trainer: Any = SimpleNamespace(strategy=SimpleNamespace(launcher=launcher), local_rank=0)
    with processes.watch_processes(trainer, lambda _: 1):
        assert not hasattr(trainer.strategy, "_launcher")
    with pytest.raises(RuntimeError, match="boom"), processes.watch_processes(trainer, lambda _: 1):
        raise RuntimeError("boom")
