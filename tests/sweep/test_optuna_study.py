"""A search by Optuna: the best trial is named whatever fails, and the same command goes on with the study."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn, JobStatus
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from ssl_zoo.sweep import optuna_study
from tests.conftest import Ended
from tests.sweep.test_launcher import CONFIG, ROOT, Sweep, make_place

pytestmark = pytest.mark.xdist_group("launcher")

# The objective falls with the distance of x from 0.3; the third job fails until `repaired` exists.
STUB = """
import os, sys
from ssl_zoo.report import results
given = dict(text.split("=", 1) for text in sys.argv[1:])
number, x = int(given["hydra.job.num"]), float(given["x"])
if number == 2 and not os.path.exists("repaired"):
    sys.exit("no luck")
told = dict(method="simclr", backbone="b", data="d", budget={"kind": "epochs", "value": 1})
told["metrics"] = {"linear/top1": 1 - abs(x - 0.3) - (given["kind"] == "b")}
results.write_results(given["hydra.run.dir"].strip("'"), results.empty_results("completed", **told))
"""
SEARCH = ("x=interval(0,1)", "kind=a,b", "seed=0", "hydra.sweeper.trials=6", "hydra.sweeper.jobs=3")


def search(place: Path, *arguments: str) -> Sweep:
    command = [sys.executable, "app.py", "-m", "hydra/sweeper=optuna", "hydra.launcher.jobs=3", *arguments]
    env = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin"}
    done = subprocess.run(command, cwd=place, env=env, capture_output=True, text=True, check=False, timeout=120)
    return Sweep(place, done.returncode, done.stdout, done.stderr)


def study_of(place: Path) -> dict:
    return json.loads((place / "sweep" / "study.json").read_text())


def test_a_study_of_six_trials_one_of_which_fails(tmp_path: Path) -> None:
    place = make_place(tmp_path)
    (place / "conf" / "config.yaml").write_text(CONFIG + "x: 0\nobjective: null\n")
    (place / "stub.py").write_text(STUB)
    without = search(place, *SEARCH)
    assert (without.code, without.err.startswith("objective must be given")) == (1, True)
    done = search(place, *SEARCH, "objective=linear/top1")
    assert done.code == 1
    assert done.err.startswith("error: 1 of 6 jobs did not complete: [3/3] x=")
    study = study_of(place)
    values = [trial["value"] for trial in study["trials"]]
    assert values.pop(2) is None
    assert max(values) == study["trials"][study["best"]]["value"]
    best = study["best"]
    assert f"best of 6 trials (5 completed): [{best + 1}/6] x=" in done.out
    assert f"linear/top1 {max(values):.6g}" in done.out
    assert "Written beside the runs: sweep/report.html" in done.out
    for trial in study["trials"]:
        if trial["value"] is not None:
            x, kind = trial["params"]["x"], trial["params"]["kind"]
            assert trial["value"] == pytest.approx(1 - abs(x - 0.3) - (kind == "b"))
    # Again: only the failed trial runs, with its values.
    (place / "repaired").touch()
    again = search(place, *SEARCH, "objective=linear/top1")
    assert again.code == 0
    assert again.out.count("completed before") == 5
    repaired = study_of(place)
    assert [trial["params"] for trial in repaired["trials"]] == [trial["params"] for trial in study["trials"]]
    assert all(trial["value"] is not None for trial in repaired["trials"])
    other = search(place, *SEARCH[1:], "x=interval(0,2)", "objective=linear/top1")
    assert other.code == 1
    assert "Give the study a folder of its own" in other.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["hydra/launcher=slurm", "seed=0,1", "objective=knn/top1"], "hydra/launcher=slurm does not wait"),
        (["seed=0", "objective=knn/top1"], "there is nothing to search"),
        (["seed=0,1", "hydra.sweeper.trials=0"], "hydra.sweeper.trials=0: give 1 or more"),
        (["seed=0,1", "hydra.sweeper.direction=up"], "hydra.sweeper.direction=up: give maximize or minimize"),
    ],
)
def test_a_search_that_cannot_be(cli: Callable[..., Ended], words: list[str], message: str) -> None:
    refused = cli("-m", "hydra/sweeper=optuna", *words)
    assert refused.status == 2
    assert message in refused.err


def test_without_optuna_its_package_is_named(cli: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    refused = cli("-m", "hydra/sweeper=optuna", "seed=0,1", "objective=knn/top1")
    assert (refused.status, refused.err) == (
        2,
        "error: hydra/sweeper=optuna: not installed. Install it: pip install optuna\n",
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x=a,b", CategoricalDistribution(["a", "b"])),
        ("x=choice(1,[2,3])", CategoricalDistribution(["1", "[2,3]"])),
        ("x=range(1,6)", IntDistribution(1, 5)),
        ("x=range(0,10,3)", IntDistribution(0, 9, step=3)),
        ("x=interval(0.1,1)", FloatDistribution(0.1, 1)),
        ("x=tag(log,interval(1e-4,1))", FloatDistribution(1e-4, 1, log=True)),
        ("x=int(interval(1,8))", IntDistribution(1, 8)),
    ],
)
def test_ranges_of_the_command_line(text: str, expected: object) -> None:
    (override,) = OverridesParser.create().parse_overrides([text])
    assert optuna_study.distribution(override) == expected


def test_what_counts_as_a_value() -> None:
    for value, expected in ((0.5, 0.5), (1, 1.0), (None, None), (float("nan"), None), (float("inf"), None)):
        assert optuna_study.measured_value(JobReturn(status=JobStatus.COMPLETED, _return_value=value)) == expected
    assert optuna_study.measured_value(JobReturn(status=JobStatus.FAILED, _return_value=ValueError())) is None


def test_measured_trials_come_alone() -> None:
    batches = optuna_study.batches(range(7), 2, lambda number: number in (0, 1, 5))
    assert list(batches) == [[0], [1], [2, 3], [4], [5], [6]]
