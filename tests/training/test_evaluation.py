"""Evaluation during training: at the right steps, on the first process, and paid for by no training time."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import nn

from ssl_zoo.evaluators.base import EvalContext
from ssl_zoo.evaluators.proportion import Proportion
from ssl_zoo.learner import Learner
from ssl_zoo.method import Method
from ssl_zoo.report.kept_features import read_features
from ssl_zoo.report.outcomes import read_outcomes
from ssl_zoo.training.evaluation import (
    PeriodicEvaluation,
    eval_context,
    identify_examples,
    keep_features,
    keep_outcomes,
    labels_of_test,
)
from tests.evaluators.fakes import FakeData, blobs, judge


class Remembers:
    """An evaluator that keeps what it was shown."""

    needs_labels = False

    def __init__(self) -> None:
        self.phases: list[str] = []

    def __call__(self, context: EvalContext) -> dict[str, float]:
        self.phases.append(context.phase)
        return {"knn/top1": Proportion(0.5, 10), "rankme": 3.0}


def trainer(is_first: bool = True) -> Any:
    logged: list[tuple[dict[str, float], int]] = []
    logger = SimpleNamespace(log_metrics=lambda metrics, step: logged.append((metrics, step)))
    strategy = SimpleNamespace(root_device=torch.device("cpu"), barrier=lambda: None)
    precision = SimpleNamespace(forward_context=torch.no_grad)
    return SimpleNamespace(
        is_global_zero=is_first, loggers=[logger], strategy=strategy, precision_plugin=precision, logged=logged
    )


def learner(monkeypatch: pytest.MonkeyPatch) -> Learner:
    method = Method(nn.Linear(2, 2))
    made = Learner(method, cast(Any, None), lambda progress: 1.0, seed=0, total_steps=10)
    monkeypatch.setattr(Learner, "global_step", property(lambda self: self.made_steps))
    return made


@pytest.mark.parametrize("is_first", [True, False])
def test_the_encoder_is_evaluated_every_so_many_steps(
    is_first: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    evaluator, at, run = Remembers(), trainer(is_first), learner(monkeypatch)
    callback = PeriodicEvaluation(FakeData(blobs(4, 2, 2, 1.0), blobs(4, 2, 2, 1.0)), {"it": evaluator}, every=4)
    for step in range(1, 11):
        for _ in range(2):  # batches that make one step: it is evaluated once
            run.made_steps = step
            callback.on_train_batch_end(at, run)
    assert evaluator.phases == ["periodic"] * 2 * is_first
    assert [step for _, step in at.logged] == [4, 8] * is_first
    assert all(metrics == {"eval/knn/top1": 0.5, "eval/rankme": 3.0} for metrics, _ in at.logged)
    assert callback.seconds > 0
    assert caplog.text.count("knn/top1 50.0 %") == 2 * is_first
    assert "rankme" not in caplog.text  # a line is for accuracies


def test_the_context_is_of_the_trainers_device_and_precision() -> None:
    at = trainer()
    context = eval_context(
        at, Method(nn.Linear(2, 2)), FakeData(blobs(4, 2, 2, 1.0), blobs(4, 2, 2, 1.0)), "init", True
    )
    assert context.device == torch.device("cpu")
    assert context.loaded
    assert context.precision is torch.no_grad


def test_which_examples_were_right_is_kept_with_the_metrics(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    right = Proportion.of([True, False, True])
    keep_outcomes(tmp_path, {"knn/top1": right, "linear/top1": right, "classifier/top1": right, "rankme": 3.0}, "a")
    replaced = Proportion.of([False, False, True])
    keep_outcomes(tmp_path, {"knn/top1": replaced, "linear/top1": Proportion(0.5, 2)}, "b", merge=True)
    found = read_outcomes(tmp_path)
    assert {key: (value.right.tolist(), value.examples) for key, value in found.items()} == {
        "classifier/top1": ([True, False, True], "a"),
        "knn/top1": ([False, False, True], "b"),
    }
    (tmp_path / "correct.npz").write_bytes(b"x")
    keep_outcomes(tmp_path, {"knn/top1": right}, "c", merge=True)
    assert "damaged" in caplog.text
    assert set(read_outcomes(tmp_path)) == {"knn/top1"}
    keep_outcomes(tmp_path, {"linear/top1": right}, "d")  # a run's end replaces all
    assert set(read_outcomes(tmp_path)) == {"linear/top1"}


def test_labels_of_the_test_examples_are_kept_where_they_are_known(tmp_path: Path) -> None:
    x, y = blobs(6, 2, 3, 1.0)
    context = judge(FakeData((x, y), (x, y), class_names=["a", "b", "c"]))
    assert labels_of_test(context) is None  # nothing was evaluated yet
    assert len(context.test.x) == 6
    labels = labels_of_test(context)
    assert labels is not None
    assert (labels.y.tolist(), labels.names) == (y.tolist(), ["a", "b", "c"])
    keep_outcomes(tmp_path, {"knn/top1": Proportion.of([True] * 6)}, "a", labels)
    found = read_outcomes(tmp_path)["knn/top1"].labels
    assert found is not None
    assert found.y.tolist() == y.tolist()
    context.data.facts["class_names"] = []
    assert labels_of_test(context) is None


def test_features_of_a_sample_are_kept(tmp_path: Path) -> None:
    x, y = blobs(1500, 3, 3, 1.0)
    context = judge(FakeData((x[:9], y[:9]), (x, y), class_names=["a", "b", "c"]))
    keep_features(tmp_path, context, "content", {"test": "test"})
    assert read_features(tmp_path) is None  # no evaluator needed any
    assert len(context.train.x) == 9
    keep_features(tmp_path, context, "content", {"test": "test"}, np.zeros((9, 2)))
    of_training = read_features(tmp_path)
    assert of_training is not None
    assert (len(of_training.x), of_training.places) == (9, None)
    assert len(context.test.x) == 1500
    keep_features(tmp_path, context, "content", {"test": "test"}, np.zeros((1000, 2)))
    found = read_features(tmp_path)
    assert found is not None
    rows = np.linspace(0, 1499, 1000).round().astype(int)
    assert found.x == pytest.approx(x.numpy()[rows], abs=0.01)
    assert (found.y == y.numpy()[rows]).all()
    assert found.examples == identify_examples("content", {"test": "test"}, context.labelled["test"])
    assert found.places is not None


def test_examples_are_known_by_content_split_labels_and_order() -> None:
    y, indices = torch.tensor([0, 1]), torch.tensor([5, 7])
    same = identify_examples("content", {"train": ["a"], "test": "test"}, (y, indices))
    assert same == identify_examples("content", {"train": ["b"], "test": "test"}, (y, indices))
    others = [("other", {"test": "test"}, (y, indices)), ("content", None, (y, indices))]
    others += [("content", {"test": "test"}, part) for part in ((y.flip(0), indices), (y, indices.flip(0)), ())]
    assert same not in {identify_examples(*other) for other in others}
