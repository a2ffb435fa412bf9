"""Every method and every experiment file trains, by existing."""

from collections.abc import Callable
from pathlib import Path

import pytest

from ssl_zoo import results
from ssl_zoo.run import CONF
from tests.conftest import Ended

METHODS = sorted(path.stem for path in (CONF / "method").glob("*.yaml"))
EXPERIMENTS = sorted(path.stem for path in (CONF / "experiment").glob("*.yaml"))
QUICK = ("logger=csv", "evaluators=[]", "trainer.accelerator=cpu", "budget.steps=2", "hydra.run.dir=run")


@pytest.mark.parametrize("method", METHODS)
def test_every_method_takes_a_step(method: str, cli: Callable[..., Ended]) -> None:
    ended = cli(f"method={method}", "data.batch_size=8", *QUICK)
    assert ended.status == 0, ended.err
    found = results.read(Path("run"))
    assert (found["status"], found["method"], found["budget"]["steps"]) == ("completed", method, 2)
    losses = Path("run/metrics.csv").read_text()
    assert "nan" not in losses


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_takes_a_step(experiment: str, cli: Callable[..., Ended]) -> None:
    ended = cli(f"experiment={experiment}", "data.batch_size=8", "trainer.devices=1", "trainer.strategy=auto", *QUICK)
    assert ended.status == 0, ended.err
    assert results.read(Path("run"))["experiment"] == experiment
