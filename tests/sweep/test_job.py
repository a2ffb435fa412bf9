"""A job's process, its log, and the results.json that stands at its end whatever happened."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ssl_zoo.report import results
from ssl_zoo.sweep import job as job_module
from ssl_zoo.sweep.job import Job


def run(folder: Path, code: str, **more: Any) -> Job:
    job = Job(title="[1/1]", folder=folder, command=[sys.executable, "-c", code], **more)
    job.start({**os.environ, "PYTHONUNBUFFERED": "1"})
    while job.process.poll() is None:
        job.follow()
        time.sleep(0.01)
    job.finish()
    return job


def test_all_output_is_in_the_log_below_the_command(tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    run(tmp_path, "import sys; print('out'); print('err', file=sys.stderr); sys.stdout.buffer.write(bytes([255, 10]))")
    command, *said = (tmp_path / "output.log").read_bytes().split(b"\n")
    assert command.startswith(f"$ {sys.executable} -c '".encode())
    assert said == [b"out", b"err", b"\xff", b""]
    assert capfdbinary.readouterr().out == b"out\nerr\n\xff\n"


def test_the_log_keeps_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_module, "MIN_LOG_BYTES", 10_000)
    run(tmp_path, "for i in range(20_000): print(f'line {i}')")
    log = (tmp_path / "output.log").read_text()
    assert 10_000 <= len(log) <= 20_000 + 65_536
    assert log.endswith("line 19998\nline 19999\n")


def test_a_second_attempt_is_added_to_the_log(tmp_path: Path) -> None:
    for attempt in (1, 2):
        run(tmp_path, f"print({attempt})")
    assert [line for line in (tmp_path / "output.log").read_text().splitlines() if line[0] != "$"] == ["1", "2"]


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("raise ValueError('a\\nb')", "exit code 1: b"),
        ("import sys; print('\\x1b[31mred\\x1b[0m\\r\\n\\n'); sys.exit(5)", "exit code 5: red"),
        (
            "import sys; sys.exit('Bad.\\nSet the environment variable HYDRA_FULL_ERROR=1 for more.')",
            "exit code 1: Bad.",
        ),
        ("", "exit code 0: no results.json"),
        ("import os, signal; print('x'); os.kill(os.getpid(), signal.SIGTERM)", "killed by SIGTERM"),
    ],
)
def test_a_job_that_recorded_nothing_is_recorded(tmp_path: Path, code: str, message: str) -> None:
    job = run(tmp_path, code, known={"method": "byol", "seed": 3})
    read = results.read_results(tmp_path)
    assert (read["status"], read["method"], read["seed"]) == ("failed", "byol", 3)
    assert read["error"]["message"] == message
    assert job.reason() == message


def test_what_a_job_recorded_before_it_was_killed_is_kept(tmp_path: Path) -> None:
    told = results.empty_results("running", method="simclr", run_id="4f2a")
    code = f"import os, signal; from ssl_zoo.report import results; results.write_results({str(tmp_path)!r}, {told!r})"
    run(tmp_path, f"{code}; os.kill(os.getpid(), signal.SIGKILL)", known={"method": "unknown"})
    killed = {"type": "killed by SIGKILL", "message": "killed by SIGKILL"}
    assert results.read_results(tmp_path) == told | {"status": "failed", "error": killed}


def test_results_of_an_earlier_attempt_do_not_count(tmp_path: Path) -> None:
    results.write_results(tmp_path, results.empty_results("failed", error={"type": "ValueError", "message": "old"}))
    assert run(tmp_path, "raise SystemExit('new')").reason() == "exit code 1: new"


def test_half_a_results_file_is_none(tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    run(tmp_path, f"open({str(file)!r}, 'w').write('{{'); raise SystemExit('disk full')")
    assert results.read_results(tmp_path)["error"]["message"] == "exit code 1: disk full"


def test_a_process_that_left_the_session_does_not_hold_us_up(tmp_path: Path) -> None:
    child = "import time; time.sleep(5)"
    started = time.monotonic()
    code = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {child!r}], start_new_session=True)"
    run(tmp_path, code)
    assert time.monotonic() - started < 4


def test_a_log_that_cannot_be_read_ends_no_job(tmp_path: Path) -> None:
    job = Job(title="[1/1]", folder=tmp_path, command=[sys.executable, "-c", "raise SystemExit(3)"])
    assert job.start({**os.environ})
    assert job._log is not None
    job._log.close()
    job._log = open(tmp_path / "other", "wb")  # noqa: SIM115 - closed by the job
    job.process.wait()
    job.finish()
    assert job.status == "failed"
    assert results.read_results(tmp_path)["error"]["message"] == "exit code 3: no results.json"


def test_output_goes_on_after_the_log_was_shortened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    monkeypatch.setattr(job_module, "MIN_LOG_BYTES", 1000)
    code = "import os; print('a' * 2500)\nwhile not 0 < os.path.getsize('output.log') <= 2000: pass\nprint('end')"
    run(tmp_path, f"import os; os.chdir({str(tmp_path)!r}); {code}")
    assert (tmp_path / "output.log").read_bytes() == b"a" * 999 + b"\nend\n"
    assert b"end\n" in capfdbinary.readouterr().out


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells children of the death of their parent")
def test_a_job_stops_when_its_launcher_is_killed(tmp_path: Path) -> None:
    code = "import os, time; open('pid', 'w').write(str(os.getpid())); os.rename('pid', 'ready'); time.sleep(600)"
    launcher = (
        "import os, sys, time; from pathlib import Path; from ssl_zoo.sweep.job import Job\n"
        f"Job('', Path('.'), [sys.executable, '-c', {code!r}]).start(dict(os.environ)); time.sleep(600)"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    process = subprocess.Popen([sys.executable, "-c", launcher], cwd=tmp_path, env=environment)
    wait_until((tmp_path / "ready").exists)
    status = Path("/proc", (tmp_path / "ready").read_text(), "status")
    assert "State:\tS" in status.read_text()
    process.kill()
    process.wait()
    wait_until(lambda: not status.exists() or "State:\tZ" in status.read_text())  # a zombie if nobody waits for it


def test_a_job_that_cannot_start_is_recorded(tmp_path: Path) -> None:
    job = Job(title="[1/1]", folder=tmp_path / "0", command=[str(tmp_path / "no program")], known={"seed": 3})
    assert not job.start({**os.environ})
    assert job.reason().startswith("FileNotFoundError: the job could not start: [Errno 2]")
    found = results.read_results(tmp_path / "0")
    assert (found["status"], found["seed"], job.is_written) == ("failed", 3, True)
    (tmp_path / "1").write_text("a file in its place")
    job = Job(title="[1/1]", folder=tmp_path / "1", command=["true"])
    assert not job.start({**os.environ})
    assert not job.is_written
    assert job.record is not None
    assert job.record["status"] == "failed"
