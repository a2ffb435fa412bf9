"""Data, evaluation, views and budget make rows incomparable; what is compared does not."""

from typing import Any

import pytest

from ssl_zoo.report import results
from ssl_zoo.report.comparable import differing_conditions, flat

CONFIG = {
    "data": {"path": "digits", "batch_size": 64, "splits": {"train": ["train"], "test": "test"}},
    "evaluators": {"knn": {"k": [20], "center": False}},
    "views": {"copies": [2], "pipelines": [["crop"]]},
    "optimizer": {"lr": 0.1},
}


def run(config: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    told: dict[str, Any] = {"method": "simclr", "data": "digits", "budget": {"kind": "epochs", "value": 40}}
    return results.empty_results("completed", **told) | {"config": CONFIG | (config or {})} | changes


@pytest.mark.parametrize(
    ("other", "found"),
    [
        (run(), []),
        (run(method="byol", backbone="vit", environment={"device": "cuda"}, seed=3), []),
        (run({"optimizer": {"lr": 0.2}, "data": CONFIG["data"] | {"batch_size": 128, "root": "/data"}}), []),
        (run({"evaluators": CONFIG["evaluators"] | {"linear": {"l2": [1]}}}), []),
        (run(data="cifar10"), ["data (digits and cifar10)"]),
        (run({"data": CONFIG["data"] | {"image_size": 32, "bits": 4}}), ["data.bits (None and 4) and 1 more"]),
        (run(data_content="b"), ["the content of the data"]),
        (run({"evaluators": {"knn": {"k": [5], "center": False}}}), ["evaluators.knn.k ([20] and [5])"]),
        (run({"evaluation_views": "patches"}), ["evaluation_views (plain and patches)"]),
        (run({"views": {"copies": [1], "pipelines": [["crop"]]}}), ["views"]),
        (run(budget={"kind": "flops", "value": 40}), ["budget (40 epochs and 40 flops)"]),
        (run({"views": None}, data="a"), ["data (digits and a)", "views"]),
    ],
)
def test_what_differs_is_named(other: dict[str, Any], found: list[str]) -> None:
    assert differing_conditions([run(data_content="a")], [other], "knn/top1") == found


def test_steps_are_equal_budgets_only_of_equal_batches() -> None:
    a, b = (run(budget={"kind": "steps", "value": 10, "examples": n}) for n in (640, 1280))
    assert differing_conditions([a], [b], "knn/top1") == [
        "budget (10 steps of 640 examples and 10 steps of 1,280 examples)"
    ]


def test_a_metric_that_was_measured_again_otherwise_differs() -> None:
    note = {"command": "python run.py task=evaluate evaluators=[knn] evaluators.knn.k=[5]", "metrics": ["knn/top1"]}
    again = run(evaluations=[note])
    assert differing_conditions([run()], [again], "knn/top1") == [
        "evaluation (at the end of the run and evaluators.knn.k=[5])"
    ]
    assert differing_conditions([run()], [again], "linear/top1") == []
    assert differing_conditions([run(evaluations=[5, {"metrics": 3}])], [run(evaluations={})], "knn/top1") == []


def test_flat() -> None:
    assert flat({"a": {"b": {"c": 1}, "d": []}, "e": {}}) == {"a.b.c": 1, "a.d": []}
    assert flat(None) == {}
