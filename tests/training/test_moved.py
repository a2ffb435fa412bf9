"""A run folder of an earlier version goes on, and its encoder loads. The one here was written by commit 0aa28e5."""

import shutil
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from hydra.utils import instantiate

from ssl_zoo.report import results
from ssl_zoo.training import card, checkpoints, moved
from tests.conftest import Ended

OLD = Path(__file__).parent / "old_run"
COMMAND = [
    "method=simclr", "backbone=vit_tiny", "+backbone.embed_dim=8", "+backbone.depth=1", "+backbone.num_heads=2",
    "method.hidden_dim=8", "method.out_dim=8", "data.batch_size=32", "logger=csv", "trainer=cpu", "evaluators=[]",
    "budget.epochs=null", "trainer.checkpoint_every=2", "hydra.run.dir=old_run", "seed=3",
]  # fmt: skip


@pytest.mark.parametrize("name", moved.MOVED_TARGETS.values())
def test_every_moved_name_is_there(name: str) -> None:
    module, _, attribute = name.rpartition(".")
    assert callable(getattr(import_module(module), attribute))


def test_names_are_found_at_any_depth() -> None:
    config = {"a": [{"_target_": "ssl_zoo.masks.RandomMask", "x": 1}], "b": "ssl_zoo.masks.RandomMask"}
    assert moved.with_current_names(config) == {**config, "a": [{"_target_": "ssl_zoo.nn.masks.RandomMask", "x": 1}]}


def test_a_list_is_split_into_its_keys() -> None:
    """As DINO's teacher temperature; ReSSL's was always one number."""
    old = {"method": {"teacher_temperature": [0.04, 0.07, 0.3], "ema_decay": 0.9}}
    temperatures = {
        "teacher_temperature_start": 0.04,
        "teacher_temperature": 0.07,
        "teacher_temperature_warmup": 0.3,
    }
    assert moved.with_current_names(old) == {"method": {**temperatures, "ema_decay": 0.9}}
    assert moved.with_current_names({"teacher_temperature": 0.04}) == {"teacher_temperature": 0.04}


@pytest.mark.parametrize(
    ("config", "views"),
    [
        ({"views": "${paper_views.text}", "paper_views": {"text": {"copies": [2]}}}, {"copies": [2]}),
        ({"views": {"copies": [1]}, "paper_views": {"text": {"copies": [2]}}}, {"copies": [1]}),
        ({"views": {"copies": [1]}}, {"copies": [1]}),
    ],
)
def test_the_views_of_a_run_stand_in_one_place(config: dict[str, Any], views: dict[str, Any]) -> None:
    assert moved.with_resolved_views(config) == {"views": views}


def test_views_that_depend_on_the_data_stay_as_they_are() -> None:
    config = {"views": "${paper_views.${facts.modality}}", "paper_views": {"text": {}}}
    assert moved.with_resolved_views(config) == config


def test_an_old_run_goes_on(cli: Callable[..., Ended], tmp_path: Path) -> None:
    shutil.copytree(OLD, tmp_path / "old_run")
    refused = cli(*COMMAND, "budget.steps=6", "method.temperature=0.3")
    assert refused.status == 2
    assert "method.temperature=0.3 (was 0.2). Give" in refused.err
    ended = cli(*COMMAND, "budget.steps=6")
    assert ended.status == 0, ended.err
    assert "resumed from step-00000004.ckpt" in ended.out
    assert results.read_results(tmp_path / "old_run")["budget"]["steps"] == 6


def test_an_old_encoder_is_built_from_its_card() -> None:
    saved = checkpoints.load_checkpoint(checkpoints.resolve_checkpoint(OLD))
    composed = card.compose_from_card(card.read_card(saved, OLD), ("backbone",))
    backbone = instantiate(composed.backbone, _convert_="all")
    prefix = "method.backbone."
    weights = {k.removeprefix(prefix): v for k, v in saved["state_dict"].items() if k.startswith(prefix)}
    backbone.load_state_dict(weights)
