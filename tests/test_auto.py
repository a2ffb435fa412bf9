"""What is "auto" is replaced by what the data suggests, said, recorded, and the same when a run resumes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf

from ssl_zoo import auto
from ssl_zoo.report import results
from tests.conftest import Ended
from tests.data.pictures import picture, write
from tests.test_build import composed

FAST = (
    "data=folder", "data.path=pets", "backbone=resnet10t", "method.hidden_dim=8", "method.out_dim=8", "logger=csv",
    "trainer=cpu", "hydra.run.dir=run",
)  # fmt: skip


def chosen(**groups: str | None) -> DictConfig:
    """Names of files by group, as Hydra's: they cannot be changed without `read_write`."""
    choices = OmegaConf.create({"views": "auto", "experiment": None, **groups})
    OmegaConf.set_readonly(choices, True)
    return choices


@pytest.fixture
def pets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """40 small colour pictures of cats and dogs."""
    for k, name in enumerate(("cat", "dog")):
        write(tmp_path / "pets" / name, 20, first=20 * k, side=12)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "pets"


def test_picks_replace_auto_and_nothing_else(pets: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    cfg = composed("data=folder", f"data.path={pets}", "data.image_size=10", "data.store=ram")
    before = OmegaConf.to_container(cfg.data)
    found = auto.pick_data(cfg, [], chosen())
    assert found is not None
    after: Any = OmegaConf.to_container(cfg.data)
    assert {key for key in after if before[key] != after[key]} == {"in_chans", "mean", "std", "batch_size"}  # type: ignore[index, call-overload]
    assert (after["in_chans"], after["batch_size"]) == (3, 16)
    assert "data.batch_size=16" in caplog.text
    assert "data.image_size=" not in caplog.text
    assert "40" not in OmegaConf.to_yaml(cfg.budget)


def test_a_set_with_numbers_of_its_own_is_not_surveyed() -> None:
    cfg = composed("data=cifar10", "data.path=nowhere")
    assert auto.pick_data(cfg, [], chosen()) is None
    auto.pick_run_budget(cfg, [], chosen(), None)
    assert cfg.budget.epochs == 30


def test_what_a_run_has_picked_is_taken_again(pets: Path) -> None:
    cfg = composed("data=folder", f"data.path={pets}")
    auto.pick_data(cfg, [], chosen())
    recorded: Any = OmegaConf.to_container(cfg) | {"budget": {"epochs": 7}}  # type: ignore[operator]
    write(pets / "cat", 30, first=100, side=40)
    again = composed("data=folder", f"data.path={pets}")
    found = auto.pick_data(again, [], chosen(), recorded)
    auto.pick_run_budget(again, [], chosen(), found, recorded)
    assert again.data == cfg.data
    assert again.budget.epochs == 7
    fresh = composed("data=folder", f"data.path={pets}")
    auto.pick_data(fresh, [], chosen())
    assert fresh.data.mean != cfg.data.mean


@pytest.mark.parametrize(
    ("given", "method", "views"),
    [
        ([], "simclr", "auto_digits"),
        (["views=auto"], "simclr", "auto"),
        (["data.image_size=40"], "simclr", "auto"),
    ],
)
def test_tiny_grey_images_get_the_views_of_digits(given: list[str], method: str, views: str, tmp_path: Path) -> None:
    for k in range(20):
        picture(k).convert("L").save(tmp_path / f"{k}.png")
    cfg, choices = composed("data=folder", f"data.path={tmp_path}", f"method={method}", *given), chosen()
    auto.pick_data(cfg, given, choices)
    assert choices["views"] == views
    cfg.facts = {"modality": "image", "mean": [0.5], "std": [0.2], "image_size": 8}
    assert ("RandomAffine" in str(OmegaConf.to_container(cfg.views, resolve=True))) == (views == "auto_digits")


@pytest.mark.parametrize("given", ["budget.epochs=3", "budget={steps: 4}"])
def test_a_budget_that_is_given_stays(given: str, pets: Path) -> None:
    cfg = composed("data=folder", f"data.path={pets}", "backbone=resnet10t", "budget.epochs=3")
    found = auto.pick_data(cfg, [given], chosen())
    auto.pick_run_budget(cfg, [given], chosen(), found)
    auto.pick_run_budget(cfg, [], chosen(experiment="mine"), found)
    assert cfg.budget.epochs == 3
    auto.pick_run_budget(cfg, [], chosen(), found)
    assert cfg.budget.epochs == 500  # 2 steps per epoch


@pytest.mark.parametrize(
    "given", [("method=mlm", "backbone=text_tiny"), ("method=simclr", "backbone=text_tiny"), ("method=supervised",)]
)
def test_text_is_picked_too(given: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("review,label\n" + "".join(f"some words number {k},{k % 2}\n" for k in range(900)))
    cfg = composed("data=text_folder", f"data.path={tmp_path / 'a.csv'}", *given)
    found = auto.pick_data(cfg, [], chosen())
    auto.pick_run_budget(cfg, [], chosen(), found)
    assert (cfg.data.text_column, cfg.data.label_column) == ("review", "label")
    assert isinstance(cfg.data.batch_size, int)
    assert cfg.budget.epochs > 30


def test_one_command_runs_records_its_picks_and_resumes(cli: Callable[..., Ended], pets: Path) -> None:
    ended = cli(*FAST, "budget.steps=2", "trainer.checkpoint_every=1")
    assert ended.status == 0, ended.err
    assert "32 to train, 8 to test (a fixed share of each class" in ended.out
    record = results.read_results(Path("run"))
    assert record["config"]["data"]["image_size"] == 12
    assert record["config"]["data"]["batch_size"] == 16
    assert record["counts"]["knn/top1"] == 8
    ended = cli(*FAST, "budget.steps=3", "trainer.checkpoint_every=1")
    assert ended.status == 0, ended.err
    assert "picked before by this run: data.batch_size=16" in ended.out
    assert "resumed from step-00000002.ckpt" in ended.out
    assert "complete" in cli(*FAST, "budget.steps=3", "trainer.checkpoint_every=1").out
    refused = cli(*FAST, "budget.steps=3", "data.image_size=8")
    assert refused.status == 2
    assert "data.image_size=8 (was 12)" in refused.err


def test_check_reports_and_leaves_nothing(cli: Callable[..., Ended], pets: Path) -> None:
    ended = cli(*FAST, "data.check=true")
    assert ended.status == 0, ended.err
    for said in (
        "40",
        "data.image_size=12",
        "budget.epochs=500",
        "training takes about",
        "data.check=true: nothing was",
    ):
        assert said in ended.out
    assert not Path("run").exists()
    (pets / "cat" / "0000.png").write_text("no image")
    ended = cli(*FAST, "data.check=true")
    assert ended.status == 0, ended.err
    assert "a run would stop: data.on_error=raise: 1 images cannot be read" in ended.out
    ended = cli(*FAST)
    assert ended.status == 2
    assert "error: data.on_error=raise: 1 images cannot be read" in ended.err


def test_a_check_of_nothing_leaves_no_failed_run(cli: Callable[..., Ended], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    ended = cli(*FAST, "data.path=empty", "data.check=true")
    assert ended.status == 2
    assert "no images in" in ended.err
    assert not Path("run").exists()


def test_few_labels_train_a_supervised_method(cli: Callable[..., Ended], pets: Path) -> None:
    fast = [setting for setting in FAST if not setting.startswith("method.")]
    ended = cli(*fast, "method=supervised", "data.labels_per_class=3", "budget.steps=1")
    assert ended.status == 0, ended.err
    assert "supervised on folder (6 training examples, 2 classes)" in ended.out
    refused = cli(*fast, "method=supervised", "data.labels_per_class=3", "data.label_fraction=0.1", "hydra.run.dir=b")
    assert "give only one of the two" in refused.err
