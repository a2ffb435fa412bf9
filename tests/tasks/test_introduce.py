"""Each story ends in its figure, and a method that does not fit it is refused before anything is trained."""

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import hydra
import pytest
import torch
from omegaconf import OmegaConf

from ssl_zoo.build import build_data, build_method
from ssl_zoo.config import CONF, shipped_conf
from ssl_zoo.introduction import views
from ssl_zoo.report import results
from ssl_zoo.tasks import introduce
from tests.conftest import Ended
from tests.introduction.test_figure import opened
from tests.introduction.test_labels import METRICS

QUICK = ("trainer.accelerator=cpu", "budget.steps=2", "hydra.run.dir=run")
SMALL = ("backbone.channels=[8,8,8,8]", "data.batch_size=32")
STORIES = {
    "words": ("data=imdb", "data.tokenizer.vocab_size=300", "backbone.embed_dim=32", "budget.steps=20"),
    "pairs": (*SMALL, "method.text_backbone.embed_dim=32"),
}


def test_every_story_has_its_experiment() -> None:
    names = {file.stem for file in (CONF / "experiment" / "intro").glob("*.yaml")}
    assert names == introduce.UNTRAINED.keys() | introduce.TRAINED.keys()


def test_dots_are_one_command(cli: Callable[..., Ended]) -> None:
    ended = cli("experiment=intro/dots", "hydra.run.dir=run")
    assert ended.status == 0, ended.err
    assert min(opened(Path("run/dots.png").read_bytes()).size) > 500
    assert "step 60: " in Path("run/run.log").read_text()
    assert not Path("run/results.json").exists()  # nothing was trained


@pytest.mark.parametrize("story", STORIES)
def test_a_story_is_a_run_and_a_figure(story: str, cli: Callable[..., Ended]) -> None:
    command = [f"experiment=intro/{story}", *QUICK, *STORIES[story]]
    ended = cli(*command)
    assert ended.status == 0, ended.err
    assert min(opened(Path(f"run/{story}.png").read_bytes()).size) > 500
    record = results.read_results(Path("run"))
    assert (record["status"], record["experiment"]) == ("completed", f"intro/{story}")
    assert record["config"]["task"] == "pretrain"
    if story == "words":  # what is hidden is guessed otherwise after training
        guesses = {when: [line.partition(when)[2] for line in ended.out.splitlines() if when in line]
                   for when in (" before: ", " after: ")}  # fmt: skip
        assert len(guesses[" before: "]) == 3
        assert all(old != new for old, new in zip(*guesses.values(), strict=True))
        first = Path("run/words.png").read_bytes()
        os.remove("run/words.png")
        assert cli(*command).status == 0  # the run is complete: the figure alone is made again
        assert Path("run/words.png").read_bytes() == first


def test_the_supervised_story_shows_the_answers_of_its_classifier(
    cache_root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("SSL_ZOO_CACHE", str(cache_root))
    caplog.set_level("INFO")
    with shipped_conf():
        cfg = hydra.compose("config", ["experiment=intro/supervised", *SMALL])
    introduce.check_story(cfg)
    data = build_data(cfg)
    method = build_method(cfg)
    content = introduce.tell_supervised(cfg, introduce.Trained(method, method, data, METRICS))
    assert min(opened(content).size) > 500
    (batch,) = data.eval_batches("test", 400)
    with torch.no_grad():
        right = int((method.eval().classify(batch.views[0]).argmax(dim=1) == batch.labels).sum())  # type: ignore[operator]
    assert f"1397 labels: {400 - right} of 400 test pictures are named wrongly" in caplog.text


def test_the_labels_story_reads_the_metrics() -> None:
    cfg = OmegaConf.create({"evaluators": {"few_labels": {"draws": 5, "scratch": {"draws": 3}}}})
    data = SimpleNamespace(facts={"num_train": 1397, "num_classes": 10})
    content = introduce.tell_labels(cfg, SimpleNamespace(metrics=METRICS, data=data))  # type: ignore[arg-type]
    assert min(opened(content).size) > 500


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["task=introduce"], "story=None: no such story"),
        (["task=introduce", "story=dot"], "story=dot: no such story, did you mean dots?"),
        (["experiment=intro/words", "method=simclr"], "story=words does not fit SimCLR: give method=mlm"),
        (["experiment=intro/words", "evaluators=[spread]"], "story=words draws what evaluators=[mask] measures"),
    ],
)
def test_what_cannot_be_told_is_refused(arguments: list[str], said: str, cli: Callable[..., Ended]) -> None:
    ended = cli(*arguments, "hydra.run.dir=run")
    assert ended.status == 2
    assert said in ended.err
    assert not Path("run/checkpoints").exists()


def test_methods_see_their_own_views_and_masks() -> None:
    photo = torch.randint(256, (3, 60, 60), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    pair = introduce.seen("simclr", photo, seed=0)
    assert [cell.shape for cell in pair] == [(3, 96, 96)] * views.NUM_CELLS
    assert not torch.equal(pair[0], pair[1])
    assert [cell.shape[1] for cell in introduce.seen("dino", photo, seed=0)] == [96, 96, 48, 48, 48, 48]
    assert len(introduce.seen("rotnet", photo, seed=0)) == 4


def test_a_masked_digit_is_the_same_for_the_same_seed() -> None:
    digit = torch.arange(64, dtype=torch.uint8).view(1, 8, 8) * 3
    state = torch.get_rng_state()
    first, again, other = (introduce.seen("mae", digit, seed) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(map(torch.equal, first, again))
    assert not all(map(torch.equal, first, other))
    assert [int((cell == views.HIDDEN).sum()) for cell in first[1::2]] == [48] * 3  # 12 of 16 tiles of 4 pixels
