"""Fine-tuning from the command line, on images and on text, and what it refuses."""

import csv
import json
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch

from ssl_zoo.build import build_data
from ssl_zoo.conformance.subjects import compose_config
from ssl_zoo.data.text.tokenizer import TextTokenizer
from ssl_zoo.encoder import load
from ssl_zoo.report import results
from ssl_zoo.report.outcomes import read_outcomes
from ssl_zoo.tasks import finetune
from ssl_zoo.tasks.predict import load_classifier
from tests.test_encoder import image_encoder, text_encoder, tokenizer  # noqa: F401  (a fixture)
from tests.training.test_finetuning import recipe

SHORT = ["task=finetune", "logger=csv", "finetune.min_steps=4", "finetune.epochs=1", "trainer.accelerator=cpu"]


def test_images_with_few_labels(cli: Any, tmp_path: Path) -> None:
    image_encoder("conv", tmp_path)
    before = load(tmp_path)
    ended = cli(
        *SHORT, f"encoder={tmp_path}", "data=cifar10", "data.labels_per_class=2", "finetune.mode=linear",
        "hydra.run.dir=ft",
    )  # fmt: skip
    assert ended.status == 0, ended.err
    record = results.read_results("ft")
    assert record["labels"] == 20
    assert record["counts"] == {"finetuned/top1": 100, "scratch/top1": 100}
    assert record["method"] == "simclr"
    confusion = torch.tensor(record["confusion"]["finetuned"])
    assert confusion.sum() == 100
    assert confusion.diag().sum() / 100 == pytest.approx(record["metrics"]["finetuned/top1"])
    kept_outcomes = read_outcomes(Path("ft"))
    assert {key: found.right.sum() / 100 for key, found in kept_outcomes.items()} == pytest.approx(
        {key: record["metrics"][key] for key in ("finetuned/top1", "scratch/top1")}
    )
    assert len({found.examples for found in kept_outcomes.values()}) == 1
    assert Path("ft/confusion.png").read_bytes()[:4] == b"\x89PNG"
    after, kept = load_classifier("ft")
    assert kept.about["kind"] == "fine-tuned head"
    assert kept.about["top1"] == record["metrics"]["finetuned/top1"]
    state = after.network.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in before.network.state_dict().items())  # linear
    # The same command again, and classes of the files by the head.
    again = cli(*SHORT, f"encoder={tmp_path}", "data=cifar10", "hydra.run.dir=ft")
    assert again.status == 2
    assert "there are results already" in again.err
    assert cli("task=predict", "encoder=ft", "hydra.run.dir=p").status == 0  # of the data that it knows
    with open("p/predictions.csv") as file:
        assert len(list(csv.DictReader(file))) == 400


def test_text(cli: Any, tmp_path: Path, tokenizer: TextTokenizer) -> None:  # noqa: F811
    text_encoder("ours", tokenizer, tmp_path)
    before = load(tmp_path)
    ended = cli(
        *SHORT, f"encoder={tmp_path}", "data=imdb", "data.label_fraction=0.1", "finetune.drop_path=0.1",
        "finetune.scratch=false", "hydra.run.dir=ft",
    )  # fmt: skip
    assert ended.status == 0, ended.err
    record = json.loads(Path("ft/results.json").read_text())
    assert record["labels"] == 20
    assert set(record["metrics"]) == {"finetuned/top1", "finetuned/macro_f1"}
    after = load("ft")
    assert after.tokenizer is not None
    assert after.tokenizer.identity == tokenizer.identity
    texts = ["a good film", "so bad"]
    assert not torch.equal(after.embed(texts), before.embed(texts))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["data=cifar10"], "encoder: task=finetune needs one"),
        (["data=cifar10", "encoder=nowhere"], "encoder=nowhere: no such file or folder"),
        (["data=cifar10", "encoder={}", "finetune.epochs=0"], "finetune.epochs=0: give 1 or more"),
        (["data=imdb", "encoder={}"], "data: it is of text, and the encoder is for image"),
        (["data=cifar10", "encoder={}", "data.label_fraction=2"], "data.label_fraction=2: give a number above 0"),
        (["data=cifar10", "encoder={}", "data.image_size=64"], "data.image_size=64: the encoder is for 32"),
    ],
)
def test_mistakes_are_named_before_the_data(cli: Any, arguments: list[str], said: str, tmp_path: Path) -> None:
    image_encoder("conv", tmp_path)
    ended = cli(*SHORT, *(argument.format(tmp_path) for argument in arguments), "hydra.run.dir=ft")
    assert ended.status == 2
    assert said in ended.err
    assert "training and" not in ended.out
    assert not Path("ft/results.json").exists()


def test_networks_of_the_recipe(tmp_path: Path) -> None:
    image_encoder("vit", tmp_path)
    encoder = load(tmp_path)
    torch.manual_seed(0)
    tuned, scratch = finetune.networks("vit", encoder, recipe(drop_path=0.2), 5)
    drawn = torch.rand(1)
    torch.manual_seed(0)
    assert torch.equal(torch.rand(1), drawn)  # the caller's random numbers are its own
    x = torch.randn(2, 3, 16, 16)
    assert torch.equal(tuned.eval()(x), encoder(x))
    assert not torch.allclose(scratch.eval()(x), encoder(x))
    drops: Any = [module.drop_prob for module in tuned.modules() if type(module).__name__ == "DropPath"]
    assert max(drops) == pytest.approx(0.2)
    assert torch.equal(finetune.networks("vit", encoder, recipe(), 5)[1].eval()(x), scratch(x))


@pytest.mark.parametrize("start", [0, 3])
def test_a_resumed_fine_tuning_goes_on_in_the_data(start: int) -> None:
    data = build_data(compose_config("supervised", "data=digits", "data.batch_size=32"))
    every = finetune.batches_from(data, torch.device("cpu"), 0)
    expected, expected_labels = next(islice(every, start, None))
    view, labels = next(finetune.batches_from(data, torch.device("cpu"), start))
    assert torch.equal(view, expected)
    assert torch.equal(labels, expected_labels)
