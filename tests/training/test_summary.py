"""What a run says of itself: its first line, one line an evaluation, and when nothing was learned."""

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from ssl_zoo.evaluators.base import EvalContext, Features
from ssl_zoo.evaluators.correlation import Correlation
from ssl_zoo.evaluators.proportion import Proportion
from ssl_zoo.method import Method
from ssl_zoo.training import summary
from tests.evaluators.fakes import FakeData, blobs, judge


def test_the_first_line_names_each_choice_and_the_cost() -> None:
    data = SimpleNamespace(facts={"num_classes": 10, "has_labels": True}, num_train=1397, views=[1, 2])
    choices = {"method": "simclr", "data": "digits", "views": "mild", "backbone": "resnet18", "optimizer": "lars"}
    line = summary.first_line(
        choices, data, Method(nn.Linear(1000, 1000)), 1.234e9, 754.0, precision="bf16-mixed", budget="6 steps"
    )
    for said in (
        "simclr on digits (1,397 training examples, 10 classes)",
        "views mild (2 per example)",
        "backbone resnet18 (1 M parameters, 1.23 GFLOP per example)",
        "optimizer lars, bf16-mixed, 6 steps, about 13 min of training",
    ):
        assert said in line
    data.facts["has_labels"] = False
    assert "no labels" in summary.first_line(choices, data, Method(nn.Linear(2, 2)), 1.0, 1.0)


class Talks:
    needs_labels = False

    def __call__(self, judged: EvalContext) -> dict[str, float]:
        logging.getLogger("ssl_zoo.evaluators.knn").warning("k is too large")
        if judged.phase == "periodic":
            raise FloatingPointError
        return {"knn/top1": 0.5}


def test_one_line_says_what_is_evaluated_and_how_long_it_took(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    data = FakeData(blobs(30, 4, 3, 2.0), blobs(12, 4, 3, 2.0))
    assert summary.evaluate_and_log("before training", {"knn": Talks()}, judge(data)) == {"knn/top1": 0.5}
    line, notes = caplog.messages
    assert line.startswith("before training: evaluating knn on 12 test examples ... ")
    assert line.endswith(" s")
    assert notes == "k is too large"
    caplog.clear()
    with pytest.raises(FloatingPointError):
        summary.evaluate_and_log("after training", {"knn": Talks()}, judge(data, "periodic"))
    assert caplog.messages[1] == "k is too large"
    caplog.clear()
    assert summary.evaluate_and_log("after training", {}, judge(data)) == {}
    assert not caplog.messages


def metrics(before: float, after: float, n: int = 400, key: str = "knn/top1", **more: Any) -> dict[str, float]:
    return {f"init/{key}": Proportion(before, n), key: Proportion(after, n), "rankme": 3.0, **more}


@pytest.mark.parametrize(
    ("found", "majority", "is_warned"),
    [
        (metrics(0.30, 0.80), 0.1, False),
        (metrics(0.80, 0.80), 0.1, True),
        (metrics(0.80, 0.82), 0.1, True),  # within chance
        (metrics(0.80, 0.82, n=40_000), 0.1, False),
        (metrics(0.30, 0.50), 0.5, True),  # always the same class
        (metrics(0.30, 0.50), None, False),
        (metrics(0.80, 0.10), 0.1, True),
        (metrics(0.80, 0.80) | metrics(0.30, 0.80, key="linear/top1"), 0.1, False),
        (metrics(0.0, 0.04, 9000, "mask/top1") | {"mask/majority_top1": 0.04}, None, True),
        (metrics(0.0, 0.27, 9000, "mask/top1") | {"mask/majority_top1": 0.04}, None, False),
        ({"rankme": 3.0, "init/rankme": 4.0}, None, False),
        ({"knn/top1": Proportion(0.8, 400)}, 0.1, False),
        (
            metrics(0.02, 0.2, key="retrieval/text_to_image/recall1"),
            0.9,
            False,
        ),  # the test split's classes do not count
        (metrics(0.5, 0.5, key="transfer/mr/top1") | {"tfidf/mr/top1": Proportion(0.9, 400)}, None, True),
    ],
)
def test_a_sentence_says_when_nothing_was_learned(
    found: dict[str, float], majority: float | None, is_warned: bool
) -> None:
    sentence = summary.nothing_learned(found, majority)
    assert (sentence is not None) == is_warned
    if sentence is not None:
        assert "nothing was learned" in sentence
        assert "% before" in sentence


def test_counts_are_of_accuracies() -> None:
    assert summary.example_counts(metrics(0.3, 0.8)) == {"init/knn/top1": 400, "knn/top1": 400}
    assert summary.format_metric(Proportion(0.94, 400)) == "94.0 % (91.2 to 95.9)"
    assert summary.example_counts({"sentence_pairs/stsb/spearman": Correlation(0.7, 1379)}).popitem()[1] == 1379
    assert summary.format_metric(Correlation(0.7, 1379)) == "0.700 (0.669 to 0.729)"
    assert (summary.format_metric(12.3456), summary.format_metric(None)) == ("12.35", "")


def test_evaluators_report_how_many_examples_an_accuracy_is_of() -> None:
    from ssl_zoo.evaluators.base import run_evaluators
    from ssl_zoo.evaluators.knn import KNN
    from ssl_zoo.evaluators.linear import Linear

    data = FakeData(blobs(60, 8, 3, 3.0), blobs(45, 8, 3, 3.0, seed=1))
    evaluators = {"knn": KNN([5, 20], 0.07, False), "linear": Linear([1e-2], 0.2)}
    found = run_evaluators(evaluators, judge(data, encoder=nn.Linear(8, 8, dtype=torch.float32)))
    assert summary.example_counts(found) == {"knn/top1": 45, "knn20/top1": 45, "linear/top1": 45}


def test_metrics_are_shown_beside_those_before_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    summary.show_metrics(tmp_path, "simclr", {"knn/top1": 0.75, "init/knn/top1": 0.25}, SimpleNamespace(facts={}), None)
    out = capsys.readouterr().out
    assert "0.25" in out
    assert "0.75" in out
    assert "last epoch" in out


def test_names_of_metrics_are_shown_in_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "70")
    name = "retrieval/image_to_text/recall10"
    found = {f"init/{name}": Proportion(0.05, 200), name: Proportion(0.5, 200)}
    summary.show_metrics(tmp_path, "clip", found, SimpleNamespace(facts={}), None)
    assert name in capsys.readouterr().out


def test_accuracies_are_shown_with_n_and_interval_and_the_majority(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    facts = {"class_names": ["a", "b"]}
    y = torch.tensor([0] * 30 + [1] * 10)
    features = Features(torch.randn(40, 3), y, torch.arange(40))
    shares = {"knn/top1": Proportion(0.75, 40), "init/knn/top1": Proportion(0.5, 40)}
    places = summary.show_metrics(tmp_path, "simclr", shares, SimpleNamespace(facts=facts), features)
    assert places is not None
    assert places.shape == (40, 2)
    out = capsys.readouterr().out
    assert "50.0 % (35.2 to 64.8)" in out
    assert "75.0 % (59.8 to 85.8) │ 40" in out
    assert "majority class" in out
    assert "nothing was learned" in caplog.text


@pytest.mark.parametrize("error", [RuntimeError("no font"), OSError(28, "No space left"), BrokenPipeError()])
def test_what_is_only_shown_can_fail(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr(summary.picture, "plot_run_picture", fail)
    monkeypatch.setattr(summary.few_labels, "few_labels_table", fail)
    monkeypatch.setattr("ssl_zoo.report.display.os.dup2", lambda *_: None)
    features = SimpleNamespace(x=torch.zeros(2, 2), y=torch.zeros(2, dtype=torch.int64))
    named = SimpleNamespace(facts={"class_names": ["a"]})
    summary.show_metrics(tmp_path, "simclr", {"knn/top1": 0.75, "few/1/knn": 0.5}, named, features)
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]
    assert type(error).__name__ in caplog.text
