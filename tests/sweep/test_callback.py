"""The report at the end of a sweep, with Hydra's own launcher too, and with jobs that have not ended."""

import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from ssl_zoo.report import results, wandb_report
from ssl_zoo.sweep.callback import WriteReport
from tests.sweep.test_launcher import CONFIG, make_place, sweep

BUDGET = {"kind": "epochs", "value": 1}


def write_run(folder: Path, status: str) -> None:
    folder.mkdir(parents=True)
    record = results.empty_results(status, method="simclr", data="digits", seed=0, budget=BUDGET)
    results.write_results(folder, record | {"metrics": {"knn/top1": 0.5}})


def end_sweep(folder: Path, **more: object) -> None:
    WriteReport().on_multirun_end(OmegaConf.create({"hydra": {"sweep": {"dir": str(folder)}}}), config_name="c", **more)


def test_a_sweep_with_hydras_own_launcher_ends_with_the_report(tmp_path: Path) -> None:
    place = make_place(tmp_path)
    (place / "conf" / "config.yaml").write_text(CONFIG.replace("  launcher: {module: stub, grace: 0.5}\n", ""))
    done = sweep(place, "method=byol,simclr", "hydra/launcher=basic")
    assert (done.code, done.err) == (0, "")
    assert (tmp_path / "sweep" / "report.html").exists()
    report = (tmp_path / "sweep" / "report.md").read_text()
    assert "| byol |" in report
    assert "| simclr |" in report
    assert done.out.endswith("jobs that are still queued: python -m ssl_zoo.report sweep\n")


@pytest.mark.parametrize(
    ("logger", "project"),
    [
        ({"wandb": {"_target_": "ssl_zoo.training.loggers.Wandb", "folder": "${no:such}", "project": "zoo"}}, "zoo"),
        ({"tensorboard": {"_target_": "ssl_zoo.training.loggers.tensorboard"}}, None),
        ({}, None),
        (None, None),
    ],
)
def test_the_report_goes_to_wandb_where_the_jobs_do(
    logger: dict | None, project: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[tuple[str, str]] = []
    monkeypatch.setattr(
        wandb_report, "send_to_wandb", lambda report, folder, project, group: sent.append((project, group))
    )
    write_run(tmp_path / "today" / "noon" / "0", "completed")
    config = {"hydra": {"sweep": {"dir": str(tmp_path / "today" / "noon")}}, "logger": logger}
    WriteReport().on_multirun_end(OmegaConf.create(config))
    assert sent == ([(project, "today-noon")] if project else [])


def test_a_sweep_in_processes_has_one_report(tmp_path: Path) -> None:
    for kind in ("completes", "raises"):  # Hydra calls the callback in one case, the launcher in the other
        done = sweep(make_place(tmp_path / kind), f"kind={kind}", "measured=true")
        assert done.out.count("Written beside the runs") == 1


def test_jobs_that_run_are_listed_as_such(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path / "my sweep" / "0", "completed")
    write_run(tmp_path / "my sweep" / "1", "running")
    end_sweep(tmp_path / "my sweep")
    *_, command = capsys.readouterr().out.splitlines()
    report = (tmp_path / "my sweep" / "report.md").read_text()
    assert "| simclr | 50.0 " in report
    assert "running" in report
    # The command that is named makes the report again, with the job that has ended meanwhile.
    write_run(tmp_path / "my sweep" / "2", "completed")
    words = shlex.split(command.partition("queued: ")[2])
    subprocess.run([sys.executable, *words[1:]], check=True, capture_output=True)
    assert (tmp_path / "my sweep" / "report.md").read_text() != report


@pytest.mark.parametrize("exists", [False, True])
def test_without_results_there_is_no_report(tmp_path: Path, capsys: pytest.CaptureFixture[str], exists: bool) -> None:
    if exists:
        (tmp_path / "sweep" / ".submitit").mkdir(parents=True)
    end_sweep(tmp_path / "sweep")
    out = capsys.readouterr().out
    assert "no job has any results yet" in out
    assert f"python -m ssl_zoo.report {tmp_path / 'sweep'}" in out
    assert not list(tmp_path.rglob("report*"))


def test_a_report_that_cannot_be_written_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path / "0", "completed")
    (tmp_path / "report.md").mkdir()
    with pytest.raises(SystemExit, match="1"):
        end_sweep(tmp_path)
    assert f"error: the report could not be written to {tmp_path}: " in capsys.readouterr().err


def test_results_that_could_not_be_written_count(tmp_path: Path) -> None:
    write_run(tmp_path / "0", "interrupted")
    known = results.empty_results("failed", method="byol", error={"type": "OSError", "message": "no\nroom"})
    end_sweep(tmp_path, unwritten=[known | {"folder": tmp_path / "0"}])
    report = (tmp_path / "report.md").read_text()
    assert "no room" in report
    assert "interrupted" not in report
