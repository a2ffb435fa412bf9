"""The README: its size, its tables, and the promise of its first command."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import accuracy
from ssl_zoo.report import results

README = (Path(__file__).parent.parent / "README.md").read_text()


def test_size() -> None:
    assert len(README.encode()) <= 8_000


def test_set_up_is_two_commands() -> None:
    assert "\npip install uv && uv run run.py\nuv run pytest\n" in README


@pytest.mark.slow
def test_the_first_command_makes_its_point(tmp_path: Path, cache_root: Path) -> None:
    """`run.py` with no arguments: with few labels SimCLR beats pixels, random weights and training from scratch."""
    environment = os.environ | {"SSL_ZOO_CACHE": str(cache_root), "WANDB_MODE": "offline"}
    command = [sys.executable, "-m", "ssl_zoo.run", "hydra.run.dir=run"]
    ended = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=900, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert "1 label per class" in ended.stdout
    assert (tmp_path / "run" / "report.png").stat().st_size > 10_000
    metrics = results.read_results(tmp_path / "run")["metrics"]
    for labels, margin in ((1, 0.05), (10, 0.005)):
        few = {key: metrics[key] for key in metrics if f"few/{labels}/" in key and not key.endswith("_std")}
        rivals = {
            key: value for key, value in few.items() if key.startswith("init/") or "pixels" in key or "scratch" in key
        }
        assert len(rivals) == 5
        assert metrics[f"few/{labels}/linear"] > max(rivals.values()) + margin, few
    assert metrics["linear/top1"] > 0.97


def test_tables_are_what_is_recorded() -> None:
    """Else run `python benchmarks/accuracy.py --tables`."""
    _, shown, _ = README.split(accuracy.MARK)
    assert shown.strip() == accuracy.short_table().strip()
    assert accuracy.TABLE.read_text() == accuracy.table()
