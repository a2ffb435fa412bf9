"""The Python functions run what the command line runs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import ssl_zoo
from ssl_zoo import api
from tests.conftest import Ended

QUICK: dict[str, Any] = {"budget": {"steps": 1}, "evaluators": [], "logger": "csv"}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"seed": 1, "name": None}, ["seed=1", "name=null"]),
        ({"budget": {"epochs": 0.5}}, ["budget.epochs=0.5"]),
        ({"trainer": {"compile": True}}, ["trainer.compile=true"]),
        ({"evaluators": ["knn", "linear"]}, ["evaluators=[knn,linear]"]),
        ({"data.path": Path("my pictures")}, ["data.path='my pictures'"]),
        ({"text": "it's [MASK]"}, ["text='it\\'s [MASK]'"]),
        ({"data": {"mean": [0.5, 1e-7]}}, ["data.mean=[0.5,1e-07]"]),
    ],
)
def test_settings_become_overrides(settings: dict[str, Any], words: list[str]) -> None:
    assert api.as_overrides(settings) == words


def test_data_is_a_name_or_a_path(tmp_path: Path) -> None:
    assert api.choose_data("cifar10") == {"data": "cifar10"}
    assert api.choose_data(None) == {}
    (tmp_path / "a.txt").write_text("x")
    assert api.choose_data(tmp_path) == {"data": "text_folder", "data.path": str(tmp_path)}
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "b.JPG").write_text("x")
    assert api.choose_data(str(tmp_path)) == {"data": "folder", "data.path": str(tmp_path)}
    (tmp_path / "table.csv").write_text("file,label\n")
    with pytest.raises(ValueError, match="does not tell whether it is of images or of text"):
        api.choose_data(tmp_path / "table.csv")
    with pytest.raises(ValueError, match="data=cifar11: no such data set in conf/data, and no such folder"):
        api.choose_data("cifar11")


def test_a_run_equals_that_of_the_command_line(cli: Callable[..., Ended], tmp_path: Path) -> None:
    ended = cli("method=byol", "budget.steps=1", "evaluators=[]", "logger=csv", "hydra.run.dir=command")
    assert ended.status == 0, ended.err
    run = ssl_zoo.pretrain("byol", folder="python", **QUICK)
    assert run.results["status"] == "completed"
    by_command = ssl_zoo.load("command")
    assert run.encoder.manifest["weights_hash"] == by_command.manifest["weights_hash"]
    assert all(torch.equal(a, b) for a, b in zip(run.encoder.parameters(), by_command.parameters(), strict=True))
    assert run.metrics == {}
    assert {path.name for path in Path("python").iterdir()} >= {".hydra", "results.json", "encoder.safetensors"}


def test_mistakes_are_raised_with_their_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"method=byoll: no such choice, did you mean byol"):
        ssl_zoo.pretrain("byoll")
    with pytest.raises(ValueError, match=r"no such key|has no such key"):
        ssl_zoo.pretrain("byol", budgett={"steps": 1})
    with pytest.raises(ValueError, match="queue"):
        ssl_zoo.pretrain("moco", **{"method.queue_size": 16})
    with pytest.raises(ValueError, match="no such file or folder"):
        ssl_zoo.evaluate("nowhere")


def test_a_folder_of_ones_own_from_training_to_predictions(cli: Callable[..., Ended]) -> None:
    """One command each, with nothing given that the folder or the encoder can tell."""
    rng = np.random.default_rng(0)
    for name, tint in (("rain", 40), ("snow", 120), ("sun", 200)):
        Path("weather", name).mkdir(parents=True)
        for i in range(20):
            pixels = np.clip(rng.normal(tint, 30, (20 + i, 24, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(Path("weather", name, f"{i:02}.png"))
    small = ("backbone=resnet10t", "logger=csv", "evaluators=[linear]")
    ended = cli("data=folder", "data.path=weather", *small, "budget.steps=2", "hydra.run.dir=run")
    assert ended.status == 0, ended.err
    assert "48 to train, 12 to test" in ended.out
    ended = cli("task=evaluate", "encoder=run", "evaluators=[knn]", "logger=csv", "hydra.run.dir=evaluated")
    assert ended.status == 0, ended.err
    metrics = ssl_zoo.api.TaskRun(Path("run")).metrics
    assert metrics.keys() >= {"knn/top1", "linear/top1", "init/linear/top1"}
    quick = ("finetune.scratch=false", "finetune.min_steps=2", "finetune.epochs=1", "finetune.mode=linear")
    ended = cli("task=finetune", "encoder=run", "data.labels_per_class=4", *quick, "logger=csv", "hydra.run.dir=tuned")
    assert ended.status == 0, ended.err
    assert ssl_zoo.api.TaskRun(Path("tuned")).results["labels"] == 12
    ended = cli("task=predict", "encoder=run", "data.path=weather/sun", "logger=csv", "hydra.run.dir=predicted")
    assert ended.status == 0, ended.err
    rows = Path("predicted/predictions.csv").read_text().splitlines()
    assert rows[0] == "path,class,probability,rain,snow,sun"
    assert len(rows) == 21
    ended = cli("task=embed", "encoder=run", "data.path=weather", "logger=csv", "hydra.run.dir=embedded")
    assert ended.status == 0, ended.err
    assert len(ssl_zoo.embed("run", "weather").paths) == 60


def test_it_runs_within_another_application_of_hydra(tmp_path: Path) -> None:
    from hydra import compose, initialize_config_dir

    (tmp_path / "other.yaml").write_text("value: 3\n")
    with initialize_config_dir(str(tmp_path), version_base="1.3"):
        with pytest.raises(ValueError, match="no such choice"):
            ssl_zoo.pretrain("byoll")
        assert compose("other").value == 3
