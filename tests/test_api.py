"""The Python functions run what the command line runs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

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
