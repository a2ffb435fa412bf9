"""Each command line that the README shows composes, and each choice that it lists exists."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser

from ssl_zoo import results
from ssl_zoo.run import CONF

README = (Path(__file__).parent.parent / "README.md").read_text()
COMMANDS = re.findall(r"^(?:\| )?`?(?:uv run |python )run\.py ?([^\n`|]*)", README, re.MULTILINE)
COMMANDS += re.findall(r"`python run\.py ([^`]*)`", README)


def test_commands_are_found() -> None:
    assert len(COMMANDS) >= 8


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_composes(command: str) -> None:
    arguments = [a for a in shlex.split(command) if a != "-m" and not a.startswith("hydra.")]
    arguments = [f"text='{a.removeprefix('text=')}'" if a.startswith("text=") else a for a in arguments]
    singles = []
    for override in OverridesParser.create().parse_overrides(arguments):
        if override.is_sweep_override():
            singles.append(f"{override.get_key_element()}={next(iter(override.sweep_string_iterator()))}")
        else:
            singles.append(override.input_line or "")
    with initialize_config_dir(str(CONF), version_base="1.3"):
        compose("config", singles)


@pytest.mark.parametrize("group", ["method", "backbone", "data", "views", "optimizer", "schedule", "trainer", "logger"])
def test_every_listed_choice_exists_and_every_choice_is_listed(group: str) -> None:
    row = next(line for line in README.splitlines() if line.startswith(f"| `{group}=`") or f"`{group}=`" in line[:40])
    there = {path.stem for path in (CONF / group).glob("*.yaml")}
    named = set(re.findall(r"`([a-z0-9_]+)`", row.split("|")[2]))
    assert there <= named | {"text_folder"}, there - named


@pytest.mark.slow
def test_the_first_command_makes_its_point(tmp_path: Path, cache_root: Path) -> None:
    """`run.py` with no arguments: with few labels SimCLR beats pixels, random weights and training from scratch."""
    environment = os.environ | {"SSL_ZOO_CACHE": str(cache_root), "WANDB_MODE": "offline"}
    command = [sys.executable, "-m", "ssl_zoo.run", "hydra.run.dir=run"]
    ended = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=900, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert "1 label a class" in ended.stdout
    assert (tmp_path / "run" / "report.png").stat().st_size > 10_000
    metrics = results.read(tmp_path / "run")["metrics"]
    for labels, margin in ((1, 0.05), (10, 0.005)):
        few = {key: metrics[key] for key in metrics if f"few/{labels}/" in key and not key.endswith("_std")}
        rivals = {
            key: value for key, value in few.items() if key.startswith("init/") or "pixels" in key or "scratch" in key
        }
        assert len(rivals) == 5
        assert metrics[f"few/{labels}/linear"] > max(rivals.values()) + margin, few
    assert metrics["linear/top1"] > 0.98


def test_the_table_of_methods_is_what_the_benchmark_wrote() -> None:
    _, shown, _ = README.split("<!-- benchmarks/accuracy.py -->")
    root = Path(__file__).parent.parent
    assert shown.strip() == (root / "benchmarks" / "results" / "accuracy.md").read_text().strip()
    measured = (root / "benchmarks" / "results" / "accuracy.jsonl").read_text().splitlines()
    for run in map(json.loads, measured):
        assert f"`{run['command']}`" in shown


def test_no_method_is_listed_without_a_number() -> None:
    measured = (Path(__file__).parent.parent / "benchmarks" / "results" / "accuracy.jsonl").read_text().splitlines()
    commands = [json.loads(run)["command"].split() for run in measured]
    methods = {part.removeprefix("method=") for command in commands for part in command if part.startswith("method=")}
    assert methods == {path.stem for path in (CONF / "method").glob("*.yaml")}
