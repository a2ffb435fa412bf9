"""Every method and every experiment file trains, by existing."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from ssl_zoo.config import CONF, dotted_keys
from ssl_zoo.dry_run import dry_run
from ssl_zoo.report import results
from tests.conftest import Ended

METHODS = sorted(path.stem for path in (CONF / "method").glob("*.yaml"))
EXPERIMENTS = sorted(path.stem for path in (CONF / "experiment").glob("*.yaml"))
INTRODUCTIONS = sorted(f"intro/{path.stem}" for path in (CONF / "experiment" / "intro").glob("*.yaml"))
PUBLISHED = sorted(f"published/{path.stem}" for path in (CONF / "experiment" / "published").glob("*.yaml"))
QUICK = ("logger=csv", "evaluators=[]", "trainer.accelerator=cpu", "budget.steps=2", "hydra.run.dir=run")


@pytest.mark.parametrize("method", METHODS)
def test_every_method_takes_a_step(method: str, cli: Callable[..., Ended]) -> None:
    ended = cli(f"method={method}", "data.batch_size=8", *QUICK)
    assert ended.status == 0, ended.err
    found = results.read_results(Path("run"))
    assert (found["status"], found["method"], found["budget"]["steps"]) == ("completed", method, 2)
    losses = Path("run/metrics.jsonl").read_text()
    assert "train/loss" in losses
    assert "null" not in losses  # which stands for NaN


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_takes_a_step(experiment: str, cli: Callable[..., Ended]) -> None:
    # Compiling for a CPU takes minutes; tests/test_methods_compiled.py has what it computes.
    one_cpu = ("data.batch_size=4", "trainer.devices=1", "trainer.strategy=auto", "trainer.compile=false")
    ended = cli(f"experiment={experiment}", *one_cpu, *QUICK)
    assert ended.status == 0, ended.err
    assert results.read_results(Path("run"))["experiment"] == experiment


@pytest.mark.parametrize("experiment", EXPERIMENTS + INTRODUCTIONS + PUBLISHED)
def test_an_experiment_means_what_it_says(experiment: str) -> None:
    """Each value of the file is the value of the run, and exactly one budget remains."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("config", [f"experiment={experiment}"])
    written = OmegaConf.to_container(OmegaConf.load(CONF / "experiment" / f"{experiment}.yaml"))
    assert isinstance(written, dict)
    written.pop("defaults", None)
    composed = dotted_keys(OmegaConf.to_container(cfg))  # type: ignore[arg-type]
    for key, value in dotted_keys(written).items():
        if not isinstance(value, dict):
            assert composed[key] == value, key
    assert sum(value is not None for value in cfg.budget.values()) == 1


@pytest.mark.parametrize("name", [name for name in PUBLISHED if name != "published/cifar10_1000"])
def test_a_published_recipe_names_its_number_and_can_start(name: str) -> None:
    """It passes the checks of a run that need no data; steps of its method are tested elsewhere, on small networks."""
    header = (CONF / "experiment" / f"{name}.yaml").read_text().partition("defaults:")[0]
    assert re.search(r"Published by [\w-]+: \d\d\.\d\d % ", header)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        dry_run(compose("config", [f"experiment={name}", "trainer.accelerator=cpu"]))


COMPARISONS = sorted(path.stem for path in (CONF / "experiment" / "compare").glob("*.yaml"))


@pytest.mark.parametrize("name", COMPARISONS)
def test_a_comparison_is_a_sweep_of_runs_that_can_start(name: str) -> None:
    """Each choice of the swept group passes the checks of a run that need no data."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        params = compose("config", [f"experiment=compare/{name}"], return_hydra_config=True).hydra.sweeper.params
        (group,) = set(params) - {"seed"}
        assert len(params.seed.split(",")) >= 3
        for choice in params[group].split(","):
            cfg = compose("config", [f"experiment=compare/{name}", f"{group}={choice}", "trainer.accelerator=cpu"])
            if cfg.data.get("in_chans") == "auto":  # picked from the data, which are not read here
                cfg.data.update(in_chans=3, mean=[0.5] * 3, std=[0.5] * 3)
            dry_run(cfg)
