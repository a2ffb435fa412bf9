"""Evaluating an encoder gives the metrics of its run, to the bit, and puts them where they belong."""

import csv
from pathlib import Path
from typing import Any

import pandas
import pytest

from ssl_zoo.evaluators.knn import KNN
from ssl_zoo.evaluators.mask import Mask
from ssl_zoo.method import Method
from ssl_zoo.report import results
from ssl_zoo.report.outcomes import read_outcomes
from ssl_zoo.tasks.evaluate import check_evaluators, completed_run, merged_results, what_differs
from tests.test_encoder import image_encoder
from tests.training.test_checkpoints import backbone

CPU = ["trainer.accelerator=cpu", "trainer.precision=32-true", "logger=csv"]


def test_a_run_and_what_comes_after_it(cli: Any, data_root: Path) -> None:
    """A supervised run, its encoder evaluated on its own data and on fewer, its probe on the test files."""
    ran = cli(
        *CPU, "method=supervised", "data=cifar10", "backbone=resnet10t", "budget.steps=2", "data.batch_size=16",
        "evaluators=[linear]", "trainer.evaluate_before=false", "hydra.run.dir=run",
    )  # fmt: skip
    assert ran.status == 0, ran.err
    before = results.read_results("run")
    assert before["counts"] == {"classifier/top1": 100, "linear/top1": 100}  # the classifier's own accuracy

    # On its own data: merged, and equal.
    ended = cli("task=evaluate", "encoder=run", *CPU, "evaluators=[linear,knn]", "hydra.run.dir=e1")
    assert ended.status == 0, ended.err
    after = results.read_results("run")
    assert after["metrics"]["linear/top1"] == before["metrics"]["linear/top1"]
    assert set(after["metrics"]) == {*before["metrics"], "knn/top1", "knn200/top1"}
    assert after["counts"]["knn/top1"] == 100
    assert after["evaluations"][0]["metrics"] == ["knn/top1", "knn200/top1", "linear/l2", "linear/top1"]
    assert "task=evaluate" in after["evaluations"][0]["command"]
    assert {**after, "metrics": 0, "counts": 0, "evaluations": 0} == {
        **before, "metrics": 0, "counts": 0, "evaluations": 0,
    }  # fmt: skip
    assert not Path("e1/results.json").exists()
    kept = read_outcomes(Path("run"))
    assert {key: float(found.right.mean()) for key, found in kept.items()} == {
        key: value for key, value in after["metrics"].items() if key.endswith("/top1")
    }
    assert len({found.examples for found in kept.values()}) == 1

    # On fewer examples: results of their own, which a report can read.
    ended = cli("task=evaluate", "encoder=run", *CPU, "evaluators=[knn]", "data.eval_examples=50", "hydra.run.dir=e2")
    assert ended.status == 0, ended.err
    assert "left as they are, since data.eval_examples=50 (was None)" in ended.out
    assert results.read_results("run") == after
    other = results.read_results("e2")
    assert (other["method"], other["backbone"], other["data"]) == ("supervised", "resnet10t", "cifar10")
    assert other["budget"] == before["budget"]
    assert other["counts"] == {"knn/top1": 50, "knn200/top1": 50}
    fewer = read_outcomes(Path("e2"))["knn/top1"]
    assert len(fewer.right) == 50
    assert fewer.examples != kept["knn/top1"].examples

    # The classes of the test files, and their accuracy.
    table = pandas.read_parquet(data_root / "cifar10" / "test-00000-of-00001.parquet")
    Path("files").mkdir()
    for number, image in enumerate(table["img"]):
        Path(f"files/{number:03}.jpg").write_bytes(image["bytes"])
    Path("files/broken.jpg").write_bytes(b"no image")
    ended = cli("task=predict", "encoder=run", *CPU, "data.path=files", "hydra.run.dir=p")
    assert ended.status == 0, ended.err
    assert "1 of 101 could not be read" in ended.out
    with open("p/predictions.csv") as file:
        rows = list(csv.DictReader(file))
    assert [row["path"] for row in rows] == [*(f"{number:03}.jpg" for number in range(100)), "broken.jpg"]
    assert rows.pop()["class"] == ""
    right = sum(int(row["class"]) == label for row, label in zip(rows, table["label"], strict=True))
    assert right / 100 == before["metrics"]["linear/top1"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["evaluators=[knn]"], "encoder: task=evaluate needs one"),
        (["encoder={}", "evaluators=[]"], "evaluators=[]: nothing to evaluate"),
        (["encoder={}", "evaluators=[zero_shot]"], "evaluators=[zero_shot] needs the method that trained the encoder"),
        (["encoder={}", "evaluators.knn.k=[0]"], "evaluators.knn.k=[0]"),
        (["encoder={}", "data=imdb"], "data: it is of text, and the encoder is for image"),
        (["encoder=timm:", "data=cifar10"], "give a name after the colon"),
    ],
)
def test_mistakes_are_named_before_the_data(cli: Any, arguments: list[str], said: str, tmp_path: Path) -> None:
    image_encoder("conv", tmp_path)
    data = [] if any(argument.startswith("data=") for argument in arguments) else ["data=cifar10"]
    given = [argument.format(tmp_path) for argument in arguments]
    ended = cli("task=evaluate", *CPU, *data, *given, "hydra.run.dir=e")
    assert ended.status == 2
    assert said in ended.err
    assert "training and" not in ended.out
    assert not Path("e/results.json").exists()


def test_an_encoder_without_a_run(cli: Any, tmp_path: Path) -> None:
    image_encoder("conv", tmp_path)
    assert completed_run(str(tmp_path)) is None
    ended = cli("task=evaluate", *CPU, f"encoder={tmp_path}", "data=cifar10", "evaluators=[linear]", "hydra.run.dir=e")
    assert ended.status == 0, ended.err
    record = results.read_results("e")
    assert record["method"] == "simclr"
    assert record["budget"]["value"] == 0
    ended = cli("task=predict", *CPU, f"encoder={tmp_path}", "data=cifar10", "probe=e", "hydra.run.dir=p")
    assert ended.status == 0, ended.err
    ended = cli("task=predict", *CPU, f"encoder={tmp_path}", "data=cifar10", "hydra.run.dir=p")
    assert ended.status == 2
    assert "no classifier is kept with it" in ended.err
    assert "'evaluators=[linear]' makes one" in ended.err


def test_what_an_encoder_alone_can_be_evaluated_by() -> None:
    method = Method(backbone())
    check_evaluators({"knn": KNN([1], None, False)}, method)
    with pytest.raises(ValueError, match=r"evaluators=\[mask\] needs the method"):
        check_evaluators({"knn": KNN([1], None, False), "mask": Mask(0.15, 8, 8)}, method)


def test_what_differs() -> None:
    record = {"data_content": "a", "config": {"data": {"path": "x", "splits": {"test": "test"}, "mean": [0.5]}}}
    same = {"path": "elsewhere", "splits": {"test": "test"}, "mean": [0.5], "batch_size": 1, "bits": None}
    assert what_differs(record, same, "a") is None
    assert what_differs(record, same, "b") == "the run has seen other data"
    other = {**same, "splits": {"test": "val"}}
    assert what_differs(record, other, "a") == "data.splits.test=val (was test)"
    assert "earlier version" in str(what_differs({"config": {}}, same, "a"))


def test_merging_replaces_and_keeps() -> None:
    record = {"metrics": {"a": 1.0, "init/a": 0.5, "b": 2.0}, "counts": {"b": 3}, "seed": 7}
    about = {"metrics": {"b": 4.0, "c": 5.0}, "counts": {"b": 6}, "environment": {}}
    merged = merged_results(merged_results(record, about, ["x=1"]), about, ["x=2"])
    assert merged["metrics"] == {"a": 1.0, "init/a": 0.5, "b": 4.0, "c": 5.0}
    assert merged["counts"] == {"b": 6}
    assert [note["command"] for note in merged["evaluations"]] == ["python run.py x=1", "python run.py x=2"]
    assert merged["seed"] == 7
