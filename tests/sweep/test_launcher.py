"""`-m` with hydra/launcher=process: whatever a job does, the others run, and what happened is on record."""

import dataclasses
import json
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from ssl_zoo.report import results

pytestmark = pytest.mark.xdist_group("launcher")  # its fixture is costly: one worker runs the file

ROOT = Path(__file__).parents[2]
CONFIG = """
defaults: [{method: simclr}, _self_, {override hydra/launcher: process}, {override hydra/sweeper: grid}]
seed: 0
kind: completes
measured: false
hydra:
  callbacks: {report: {_target_: ssl_zoo.sweep.callback.WriteReport}}
  sweep: {dir: sweep, subdir: '${hydra.job.num}'}
  launcher: {module: stub, grace: 0.5}
"""
APP = """
import hydra
@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(cfg):
    from pathlib import Path
    from hydra.core.hydra_config import HydraConfig
    from ssl_zoo.report import results
    here = HydraConfig.get()
    told = dict(method=here.runtime.choices.method, backbone="b", data="d", seed=cfg.seed,
                budget={"kind": "epochs", "value": 1}, config={"kind": cfg.kind, "number": here.job.num,
                "task": list(here.overrides.task), "hydra": list(here.overrides.hydra)})
    results.write_results(here.runtime.output_dir, results.empty_results("completed", **told))
main()
"""
# Stands in for ssl_zoo.run: no Hydra in it, so that it starts at once.
STUB = """
import os, shutil, signal, subprocess, sys, time
from pathlib import Path
from ssl_zoo.report import results

def write(status="completed", **more):
    told = dict(method="simclr", backbone="resnet18", data="digits", seed=int(given.get("seed", 0)),
                budget={"kind": "epochs", "value": 1, "seconds": 0.1})
    if given.get("measured"):
        told["metrics"] = {"knn/top1": 0.5, "init/knn/top1": 0.1}
    results.write_results(folder, results.empty_results(status, **told) | more)

def start_child():  # it holds our output open, and writes as long as it lives
    code = "import sys, time\\nwhile True: open(sys.argv[1], 'a').write('.'); time.sleep(0.05)"
    subprocess.Popen([sys.executable, "-c", code, os.path.join(folder, "alive")])
    while not os.path.exists(os.path.join(folder, "alive")): time.sleep(0.01)

def records():
    write("failed", error={"type": "ValueError", "message": "temperature=0: must be positive"})
    sys.exit(1)

def hangs():
    start_child()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(600)

def saves():
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR2, signal.SIGXCPU):
        signal.signal(number, lambda *_: (write("interrupted"), sys.exit(130)))
    Path(folder, "ready").touch()
    time.sleep(600)

def spawns(): start_child(); write()

def shows():
    seen = dict(cwd=os.getcwd(), tty=sys.stdout.isatty(), argv=sys.argv[1:], stdin=sys.stdin.read())
    write(environment=os.environ | seen)

def stays():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    Path(folder, "ready").touch()
    time.sleep(600)

def leaves_nothing(): shutil.rmtree(folder); sys.exit(3)
def blocks(): shutil.rmtree(folder); Path(folder).write_text("in its place"); sys.exit(3)

def raises(): raise RuntimeError("boom")
def exits(): sys.exit(3)
def leaves(): sys.exit(0)
def vanishes(): os._exit(4)
def killed(): os.kill(os.getpid(), signal.SIGKILL)
def crashes(): os.kill(os.getpid(), signal.SIGSEGV)
def interrupted(): raise KeyboardInterrupt
def late(): write(); os.kill(os.getpid(), signal.SIGSEGV)
def completes(): write()
def speaks(): print("one\\rtwo", flush=True); time.sleep(0.3); print("three"); write()

given = dict(text.split("=", 1) for text in sys.argv[1:] if not text.startswith("--"))
folder = given["hydra.run.dir"].strip("'")
print("job", given.get("kind"), folder)
globals()[given.get("kind", "completes")]()
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return make_place(tmp_path)


def make_place(folder: Path) -> Path:
    """A folder with an app that is swept, and the module that its jobs run."""
    (folder / "conf" / "method").mkdir(parents=True)
    (folder / "conf" / "config.yaml").write_text(CONFIG)
    for method in ("simclr", "byol"):
        (folder / "conf" / "method" / f"{method}.yaml").write_text(f"name: {method}")
    (folder / "app.py").write_text(APP)
    (folder / "stub.py").write_text(STUB)
    return folder


def start(place: Path, *arguments: str, **more: Any) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **more.pop("env", {})}
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.PIPE} | more
    command = [sys.executable, "app.py", "-m", *arguments]
    return subprocess.Popen(command, cwd=place, env=environment, text=True, **streams)


@dataclasses.dataclass
class Sweep:
    place: Path
    code: int
    out: str
    err: str

    def read(self, number: int) -> dict[str, Any]:
        return results.read_results(self.place / "sweep" / str(number))

    def line(self, start: str) -> str:
        """The last line of output that begins so: how a job ended."""
        return [line for line in self.out.splitlines() if line.startswith(start)][-1]


def sweep(place: Path, *arguments: str, **more: Any) -> Sweep:
    process = start(place, *arguments, **more)
    out, err = process.communicate(timeout=60)
    return Sweep(place, process.returncode, out, err)


FAILURES = {
    "raises": "exit code 1: RuntimeError: boom",
    "records": "ValueError: temperature=0: must be positive (exit code 1)",
    "exits": "exit code 3: job exits sweep/",
    "leaves": "exit code 0: job leaves sweep/",
    "vanishes": "exit code 4: ",
    "killed": "killed by SIGKILL",
    "crashes": "killed by SIGSEGV",
    "interrupted": "killed by SIGINT",
    "hangs": "timed out after 0.05 min",
}


@pytest.fixture(scope="module")
def failures(tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    """Every kind of failure, and a good job after each."""
    place = make_place(tmp_path_factory.mktemp("failures"))
    kinds = ",".join(f"{kind},{'spawns' if kind == 'hangs' else 'completes'}" for kind in FAILURES)
    return sweep(place, f"kind={kinds}", "measured=true", "hydra.launcher.timeout=0.05")


@pytest.mark.parametrize("kind", FAILURES)
def test_a_failure_is_recorded_with_its_reason(failures: Sweep, kind: str) -> None:
    number = 2 * list(FAILURES).index(kind)
    read = failures.read(number)
    assert read["status"] == "failed"
    assert (read["method"], read["seed"]) == ("simclr", 0)
    line = failures.line(f"[{number + 1}/{2 * len(FAILURES)}] kind={kind}  failed: {FAILURES[kind]}")
    assert line.endswith(f"  sweep/{number}/output.log")
    assert f"job {kind} sweep/{number}\n" in (failures.place / "sweep" / str(number) / "output.log").read_text()
    assert f"[{number + 1}/18] kind={kind}" in failures.err


def test_no_failure_reaches_another_job(failures: Sweep) -> None:
    assert [failures.read(number)["status"] for number in range(1, 2 * len(FAILURES), 2)] == ["completed"] * 9


def test_the_sweep_fails_and_says_so_without_a_traceback(failures: Sweep) -> None:
    assert failures.code == 1
    assert failures.err.startswith("error: 9 of 18 jobs did not complete: [1/18] kind=raises, [3/18] kind=records, ")
    assert len(failures.err.splitlines()) == 1


def test_the_comparison_is_printed_and_written(failures: Sweep) -> None:
    assert "Not completed" in failures.out
    assert "| simclr | 50.0 ± 0.0 | 10.0 ± 0.0 | 9 |" in (failures.place / "sweep" / "report.md").read_text()
    assert (failures.place / "sweep" / "report.csv").exists()
    assert (failures.place / "sweep" / "report.html").exists()


def test_what_a_job_started_ends_with_it(failures: Sweep) -> None:
    files = [failures.place / "sweep" / str(number) / "alive" for number in (16, 17)]  # of "hangs" and "spawns"
    sizes = [file.stat().st_size for file in files]
    assert all(sizes)
    time.sleep(0.3)
    assert [file.stat().st_size for file in files] == sizes


def test_results_written_before_a_crash_count(place: Path) -> None:
    done = sweep(place, "kind=late,completes")
    assert done.code == 0
    assert "(killed by SIGSEGV after that)" in done.line("[1/2] kind=late  completed in")


def test_a_job_is_a_real_hydra_run_of_its_own(place: Path) -> None:
    """Values that need quoting, a folder with a blank and a quote, options of Hydra: all arrive as they were given."""
    folder = "it's a sweep"
    quoted = "hydra.sweep.dir='it\\'s a sweep'"
    done = sweep(place, "kind='a b,c',\"d\"", "method=byol", quoted, "hydra.launcher.module=app", "hydra.job.name=x")
    assert (done.code, done.err) == (0, "")
    read = [results.read_results(place / folder / str(number)) for number in (0, 1)]
    assert [(one["method"], one["config"]["kind"], one["config"]["number"]) for one in read] == [
        ("byol", "a b,c", 0),
        ("byol", "d", 1),
    ]
    assert "hydra.job.name=x" in read[0]["config"]["hydra"]
    assert not [text for one in read for text in one["config"]["hydra"] if "launcher" in text or "sweep.dir" in text]
    assert (place / folder / "0" / ".hydra" / "overrides.yaml").exists()


def test_a_job_has_a_clean_environment(place: Path) -> None:
    dirty = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "NODE_RANK", "GROUP_RANK", "MASTER_ADDR", "MASTER_PORT")
    dirty += ("PL_GLOBAL_SEED", "WANDB_RUN_ID", "SSL_ZOO_RUN_ID", "TORCHELASTIC_RUN_ID")
    done = sweep(place, "kind=shows", "seed=7", "hydra.verbose=false", env=dict.fromkeys(dirty, "1") | {"KEPT": "yes"})
    seen = done.read(0)["environment"]
    assert not seen.keys() & {*dirty}
    assert seen["KEPT"] == "yes"
    assert seen["cwd"] == str(place)
    assert seen["SSL_ZOO_SWEEP"] == f"{place.name}-sweep"
    assert (seen["stdin"], seen["tty"]) == ("", False)
    ours = ["hydra.mode=RUN", "hydra.job.num=0", "hydra.job.id=0", "hydra.run.dir='sweep/0'"]
    assert seen["argv"] == ["kind=shows", "seed=7", "hydra.verbose=false", *ours]


def test_the_same_sweep_again_runs_what_is_not_completed(place: Path) -> None:
    assert sweep(place, "kind=completes,raises").code == 1
    before = (place / "sweep" / "0" / "results.json").stat().st_mtime_ns
    (place / "stub.py").write_text(STUB.replace('raise RuntimeError("boom")', "write()"))
    again = sweep(place, "kind=completes,raises")
    assert again.code == 0
    assert again.line("[1/2]") == "[1/2] kind=completes  skipped, completed before  sweep/0"
    assert (place / "sweep" / "0" / "results.json").stat().st_mtime_ns == before
    assert again.read(1)["status"] == "completed"
    assert "error" not in again.read(1)


def test_a_changed_sweep_does_not_take_the_results_of_another(place: Path) -> None:
    (place / "sweep" / "1" / ".hydra").mkdir(parents=True)
    (place / "sweep" / "1" / ".hydra" / "overrides.yaml").write_text("- seed=1\n- kind=completes\n")
    refused = sweep(place, "kind=completes", "seed=0,2")
    assert refused.code == 1
    assert refused.err.startswith("sweep/1 holds another job, seed=1 kind=completes, where this sweep has ")
    assert not (place / "sweep" / "0").exists()
    assert sweep(place, "kind=completes", "seed=0,1").code == 0


def test_several_at_once(place: Path) -> None:
    done = sweep(place, "kind=speaks", "seed=0,1,2,3", "hydra.launcher.jobs=4")
    assert done.code == 0
    for number in range(4):
        said = [line for line in done.out.splitlines() if line.startswith(f"[{number + 1}] ")]
        assert said == [f"[{number + 1}] job speaks sweep/{number}", f"[{number + 1}] two", f"[{number + 1}] three"]
        log = (place / "sweep" / str(number) / "output.log").read_bytes()
        assert log.startswith(b"$ ")
        assert log.endswith(b"one\rtwo\nthree\n")


def wait_for(file: Path) -> None:
    deadline = time.monotonic() + 30
    while not file.exists():
        assert time.monotonic() < deadline, f"{file} did not appear"
        time.sleep(0.02)


def listing(folder: Path) -> dict[str, tuple[int, bytes]]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


def test_a_refused_sweep_changes_nothing(place: Path) -> None:
    """Not even the settings and the lock of the sweep in whose folder it would have been."""
    assert sweep(place, "kind=completes", "seed=0,1").code == 0
    assert "seed=0,1" in (place / "sweep" / "multirun.yaml").read_text()
    for number in (0, 1):
        (place / "sweep" / str(number) / ".hydra").mkdir()
        (place / "sweep" / str(number) / ".hydra" / "overrides.yaml").write_text(f"- kind=completes\n- seed={number}")
    before = listing(place / "sweep")
    for arguments in (["kind=completes", "seed=0,2"], ["kind=completes", "seed=0,1", "method=none"]):
        assert sweep(place, *arguments).code == 1
        assert listing(place / "sweep") == before
    results.write_results(place / "sweep", results.empty_results("running"))
    before = listing(place / "sweep")
    refused = sweep(place, "kind=completes", "seed=0,1")
    assert refused.err.startswith("hydra.sweep.dir=sweep holds a single run.")
    assert listing(place / "sweep") == before


def test_a_lock_that_is_a_link_is_not_followed(place: Path) -> None:
    (place / "sweep").mkdir()
    (place / "precious").write_text("text")
    (place / "sweep" / ".lock").symlink_to(place / "precious")
    refused = sweep(place, "kind=completes")
    assert refused.code == 1
    assert refused.err.startswith("hydra.sweep.dir=sweep: its file .lock cannot be opened")
    assert (place / "precious").read_text() == "text"


def test_a_folder_that_cannot_be_written_costs_its_job_alone(place: Path) -> None:
    """Deleted, with a file or a link in its place, a log that is a link; from the start or while the job runs."""
    (place / "sweep").mkdir()
    (place / "precious").write_text("text")
    (place / "sweep" / "0").write_text("in its place")
    (place / "sweep" / "1").symlink_to(place / "nowhere" / "at all")
    (place / "sweep" / "2").mkdir()
    (place / "sweep" / "2" / "output.log").symlink_to(place / "precious")
    done = sweep(place, "kind=completes", "seed=0,1,2,3")
    assert (done.code, done.read(3)["status"]) == (1, "completed")
    assert done.err.startswith("error: 3 of 4 jobs did not complete: [1/4] seed=0, [2/4] seed=1, [3/4] seed=2")
    report = (place / "sweep" / "report.md").read_text()
    for number in (0, 1, 2):
        assert f"[{number + 1}/4] seed={number}  failed: " in done.out
        assert f"sweep/{number} |" in report
    assert report.count("the job could not start") == 3
    assert (place / "precious").read_text() == "text"


def test_a_folder_that_is_lost_while_its_job_runs_costs_that_job_alone(place: Path) -> None:
    done = sweep(place, "kind=leaves_nothing,blocks,completes")
    assert (done.code, done.read(2)["status"]) == (1, "completed")
    report = (place / "sweep" / "report.md").read_text()
    assert report.count("exit code 3") == 2
    assert "sweep/1/results.json cannot be written: " in done.out


def test_results_beside_checkpoints_outlive_a_failed_attempt(place: Path) -> None:
    """The run there can go on; that this attempt failed stands in the report."""
    folder = place / "sweep" / "0"
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints" / "step-00000004.ckpt").touch()
    results.write_results(folder, results.empty_results("interrupted", run_id="ab12"))
    before = (folder / "results.json").read_bytes()
    done = sweep(place, "kind=raises,completes")
    assert done.code == 1
    assert "failed: exit code 1: RuntimeError: boom" in done.out
    assert (folder / "results.json").read_bytes() == before
    report = (place / "sweep" / "report.md").read_text()
    assert "exit code 1: RuntimeError: boom" in report
    assert "interrupted" not in report


def test_a_signal_that_comes_again_and_again_waits_for_the_jobs(place: Path) -> None:
    """SIGXCPU does, every second."""
    process = start(place, "kind=saves", "hydra.launcher.grace=600")
    wait_for(place / "sweep" / "0" / "ready")
    for _ in range(5):
        process.send_signal(signal.SIGXCPU)
        time.sleep(0.05)
    process.communicate(timeout=30)
    assert process.returncode == 128 + signal.SIGXCPU
    assert results.read_results(place / "sweep" / "0")["status"] == "interrupted"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR2])
def test_a_signal_stops_the_sweep_and_says_what_remains(place: Path, number: signal.Signals) -> None:
    process = start(place, "kind=completes,saves", "seed=0,1")
    wait_for(place / "sweep" / "2" / "ready")
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 128 + number
    assert err.startswith(f"{number.name}: the running jobs are asked to save and stop")
    assert len(err.splitlines()) == 1
    assert "Not completed" in out
    assert "| simclr |" in (place / "sweep" / "report.md").read_text()
    assert out.splitlines()[-4:] == [
        f"Sweep stopped by {number.name}. 2 of 4 jobs remain:",
        "  [3/4] kind=saves seed=0  interrupted",
        "  [4/4] kind=saves seed=1  not started",
        "The same command with hydra.sweep.dir=sweep does what remains.",
    ]
    assert json.loads((place / "sweep" / "2" / "results.json").read_text())["status"] == "interrupted"
    assert not (place / "sweep" / "3").exists()


def test_a_second_interrupt_waits_for_nobody(place: Path) -> None:
    process = start(place, "kind=stays", "hydra.launcher.grace=600")
    wait_for(place / "sweep" / "0" / "ready")
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode == 130
    assert results.read_results(place / "sweep" / "0")["error"]["message"] == "sweep stopped by SIGINT"


def test_one_sweep_at_a_time_in_a_folder(place: Path) -> None:
    first = start(place, "kind=saves")
    wait_for(place / "sweep" / "0" / "ready")
    second = sweep(place, "kind=saves")
    assert (second.code, second.err.splitlines()[0]) == (
        1,
        "hydra.sweep.dir=sweep: another sweep runs in this folder. Wait for it, or give another folder",
    )
    first.send_signal(signal.SIGINT)
    first.communicate(timeout=30)
    assert first.returncode == 130


def test_on_a_terminal_the_output_of_a_job_is_unchanged(place: Path) -> None:
    ours, theirs = pty.openpty()
    process = start(place, "kind=speaks", stdout=theirs, stdin=subprocess.DEVNULL)
    os.close(theirs)
    seen = b""
    try:
        while data := os.read(ours, 65536):
            seen += data
    except OSError:  # closed on the other side
        os.close(ours)
    process.communicate(timeout=30)
    assert process.returncode == 0
    assert b"one\rtwo\r\nthree\r\n" in seen
    assert (place / "sweep" / "0" / "output.log").read_bytes().endswith(b"one\rtwo\nthree\n")


def test_output_is_shown_while_the_job_runs(place: Path) -> None:
    process = start(place, "kind=saves")
    assert process.stdout is not None
    while process.stdout.readline() != "job saves sweep/0\n":
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode == 130


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("hydra.launcher.jobs=0", "hydra.launcher.jobs=0: give 1 or more jobs at once"),
        ("hydra.launcher.timeout=-1", "hydra.launcher.timeout=-1: give minutes, or null for no limit"),
        ("hydra.launcher.timeout=soon", "Value 'soon' of type 'str' could not be converted to Float"),
        ("hydra.sweeper.max_batch_size=2", "hydra.sweeper.max_batch_size: use hydra.launcher.jobs="),
    ],
)
def test_wrong_settings_are_refused_before_any_job(place: Path, override: str, message: str) -> None:
    refused = sweep(place, "kind=completes", override)
    assert refused.code == 1
    assert message in refused.err
    assert "Traceback" not in refused.err
    assert not (place / "sweep" / "0").exists()


def test_importing_the_plugin_is_light() -> None:
    heavy = "{'torch', 'numpy', 'pandas', 'matplotlib', 'scipy', 'lightning', 'rich'}"
    code = f"import sys, hydra_plugins.ssl_zoo_launcher; print(sorted({heavy} & sys.modules.keys()))"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n"
