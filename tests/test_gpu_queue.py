"""The queue for a GPU: every item composes, results are kept one by one, and a dry run works on the CPU."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from ssl_zoo.config import CONF

sys.path.insert(0, str(CONF.parent / "benchmarks"))
import gpu_queue

SCRIPT = CONF.parent / "benchmarks" / "gpu_queue.py"


@pytest.mark.parametrize("item", gpu_queue.plan(), ids=lambda item: item.name)
def test_every_item_composes(item: gpu_queue.Item) -> None:
    words = shlex.split(item.command)
    if words[:2] == ["-m", "ssl_zoo.run"]:
        words = [word for word in words[2:] if not word.startswith("hydra.")]
    elif words[0].endswith("speed.py"):
        words = words[-1].split()
    else:
        assert (CONF.parent / words[0]).exists() or words[0] == "-m"
        return
    with initialize_config_dir(str(CONF), version_base="1.3"):
        assert compose("config", words).trainer.accelerator == "gpu"


def test_names_and_commands_are_different() -> None:
    items = gpu_queue.plan()
    assert len({item.name for item in items}) == len({item.command for item in items}) == len(items)
    assert all(0 < item.seconds < 3600 for item in items)


def test_what_has_a_result_does_not_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    items = gpu_queue.plan()
    monkeypatch.setattr(gpu_queue, "KEPT", tmp_path / "kept.jsonl")
    assert gpu_queue.waiting(items) == items
    for file, item in ((tmp_path / "kept.jsonl", items[0]), (tmp_path / "gpu.jsonl", items[2])):
        file.write_text(json.dumps({"name": item.name, "command": item.command}) + "\n")
    assert gpu_queue.waiting(items, tmp_path) == [items[1], *items[3:]]


def test_only_what_fits_is_started_and_an_item_that_fails_is_not_kept(tmp_path: Path) -> None:
    good = gpu_queue.Item("good", "-c 'print(7)'", 5, "")
    bad = gpu_queue.Item("bad", "-c 'raise SystemExit(3)'", 5, "")
    long = gpu_queue.Item("long", "-c 'print(8)'", 9999, "")
    queue = gpu_queue.Queue([long, bad, good], tmp_path, seconds=300)
    queue.work()
    (line,) = gpu_queue.recorded(tmp_path / "gpu.jsonl")
    assert (line["name"], line["output"]) == ("good", ["7"])
    assert queue.items == [long]


def test_an_item_that_outlasts_the_time_loses_only_itself(tmp_path: Path) -> None:
    slow = gpu_queue.Item("slow", "-c 'import time; time.sleep(600)'", 0, "")
    queue = gpu_queue.Queue([gpu_queue.Item("quick", "-c 'print(1)'", 0, ""), slow], tmp_path, seconds=4)
    queue.work()
    assert [line["name"] for line in gpu_queue.recorded(tmp_path / "gpu.jsonl")] == ["quick"]


@pytest.mark.slow
def test_dry_run_of_our_program_and_of_lightly(tmp_path: Path, data_root: Path) -> None:
    call = [sys.executable, str(SCRIPT), "--dry-run", "--out", str(tmp_path)]
    call += ["--only", "simclr 100", "lightly's simclr 100", "--seconds", "600"]
    environment = os.environ | {"SSL_ZOO_DATA": str(data_root), "PYTHONPATH": str(CONF.parent)}
    ended = subprocess.run(call, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    lines = gpu_queue.recorded(tmp_path / "gpu.jsonl")
    assert [line["name"] for line in lines] == ["simclr 100", "lightly's simclr 100"], ended.stdout
    for line in lines:
        assert {"knn/top1", "knn_unweighted/top1", "linear/top1"} <= line["metrics"].keys()


def test_list_prints_the_plan() -> None:
    ended = subprocess.run([sys.executable, str(SCRIPT), "--list"], capture_output=True, text=True, check=True)
    assert "estimated" not in ended.stdout
    assert " items" in ended.stdout.splitlines()[-1]
