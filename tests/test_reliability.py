"""A few cases of each kind through the functions of benchmarks/reliability.py; its document says what it counted."""

import argparse
import shutil
import signal
from pathlib import Path

import pytest

from benchmarks import failures, reliability, small_runs


@pytest.mark.slow
def test_a_kill_and_two_damaged_files(tmp_path: Path) -> None:
    small_runs.prepare(tmp_path)
    options = argparse.Namespace(kills=1, seed=0, jobs=1)
    counts, problems = failures.kills(tmp_path, options)
    assert (counts["survived"], counts["bit-equal"], problems) == (1, counts["runs"], [])
    whole, state = tmp_path / "undisturbed-mlm", tmp_path / "completed"
    shutil.copytree(whole, state)
    assert failures.try_damage(tmp_path, state, whole, "newest", "flipped") == (True, True, None)
    assert failures.try_damage(tmp_path, state, whole, "both", "empty") == (False, True, None)


@pytest.mark.slow
def test_wrong_commands_are_refused_by_name(tmp_path: Path) -> None:
    commands = failures.wrong_commands()
    assert len(commands) >= 40
    for number in (0, 10, 20):
        assert failures.try_command(tmp_path, number, *commands[number])[1] is None


def test_a_command_that_is_not_refused_is_unclear(tmp_path: Path) -> None:
    assert failures.try_command(tmp_path, 0, "--version", "version")[1] is not None


def test_what_a_process_printed_and_how_it_ended(tmp_path: Path) -> None:
    run = small_runs.Process(tmp_path, "metod=byol")
    assert not run.until(lambda: False)
    run.send(signal.SIGKILL)  # too late: nothing happens
    ended = run.wait()
    assert (ended.status, "metod: no such key" in ended.printed) == (2, True)
    assert ended.seconds > 0


def test_the_document_says_what_was_counted() -> None:
    _, written, _ = reliability.DOCUMENT.read_text().split(reliability.MARK)
    assert written == f"\n{reliability.table()}"
