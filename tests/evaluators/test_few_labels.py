import statistics
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import nn

from ssl_zoo.evaluators.base import run_evaluators, warn_once
from ssl_zoo.evaluators.few_labels import (
    FewLabels,
    few_labels_table,
    first_match,
    sample_labels,
    sample_share,
    summarize,
)
from ssl_zoo.evaluators.knn import KNN
from ssl_zoo.evaluators.linear import Linear, fit_probe, standardize_features
from ssl_zoo.evaluators.proportion import Proportion
from ssl_zoo.evaluators.scratch import Scratch
from tests.evaluators.fakes import FakeData, judge
from tests.evaluators.test_scratch import FACTS, images


def few_labels(**settings: Any) -> FewLabels:
    parts = {
        "linear": Linear([1e-1, 1e-2, 1e-3], 0.2),
        "knn": KNN([20], 0.07, center=False),
        "scratch": Scratch(steps=3, batch_size=8, lr=1e-2, weight_decay=0.0, draws=2),
    }
    return FewLabels(**({"labels": [1, 5], "draws": 3, "l2": 1e-2} | parts | settings))


def digits(**facts: Any) -> FakeData:
    return FakeData(images(120), images(90, seed=1), **FACTS, **facts)


def encoder() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 12), nn.ReLU())


def test_a_draw_has_so_many_of_each_class_and_never_changes() -> None:
    y = torch.randint(7, (300,), generator=torch.Generator().manual_seed(0))
    for labels in (1, 10):
        rows = sample_labels(y, labels, 0)
        assert y[rows].bincount().tolist() == [labels] * 7
        assert len(rows.unique()) == len(rows)
        assert torch.equal(rows, sample_labels(y, labels, 0))
        assert not torch.equal(rows, sample_labels(y, labels, 1))


def test_more_labels_than_a_class_has_are_refused_with_its_name() -> None:
    with pytest.raises(ValueError, match="10 per class, but class 2 has 3"):
        sample_labels(torch.tensor([0] * 20 + [2] * 3), 10, 0)


def test_a_share_is_of_each_class_and_never_changes() -> None:
    y = torch.tensor([0] * 100 + [1] * 40 + [2] * 3)
    rows = sample_share(y, 0.1, 0)
    assert y[rows].bincount().tolist() == [10, 4, 1]
    assert len(rows.unique()) == len(rows)
    assert torch.equal(rows, sample_share(y, 0.1, 0))
    assert not torch.equal(rows, sample_share(y, 0.1, 1))


def test_shares_and_fine_tuning_are_measured_on_the_same_labels() -> None:
    finetune = Scratch(steps=4, batch_size=8, lr=1e-2, weight_decay=0.0, draws=2)
    evaluator, data, network = few_labels(labels=[5], shares=[0.1], draws=2, finetune=finetune), digits(), encoder()
    evaluator(judge(data, "init", network))
    context = judge(data, "final", network)
    found = evaluator(context)
    kinds = ("linear", "knn", "pixels_linear", "pixels_knn", "scratch", "finetuned")
    expected = {f"few/{n}/{kind}" for n in ("5", "10%", "all") for kind in kinds}
    assert {key for key in found if not key.endswith("_std")} == expected
    train, test = context.inputs("train"), context.inputs("test")
    assert found["few/all/finetuned"] == finetune.accuracy(context, network, train, test)
    rows = [sample_share(train.y, 0.1, number) for number in range(2)]
    scores = [finetune.accuracy(context, network, type(train)(*(part[r] for part in train)), test) for r in rows]
    assert found["few/10%/finetuned"] == pytest.approx(statistics.fmean(scores))


def test_all_rows_of_the_table_are_measured() -> None:
    evaluator, data, network = few_labels(), digits(), encoder()
    before = run_evaluators({"few_labels": evaluator}, judge(data, "init", network))
    assert before.keys() == {f"few/{n}/{kind}" for n in ("1", "5", "all") for kind in ("linear", "knn")} | {
        f"few/{n}/{kind}_std" for n in ("1", "5") for kind in ("linear", "knn")
    }
    assert evaluator(judge(data, "periodic", network)) == {}
    after = run_evaluators({"few_labels": evaluator}, judge(data, "final", network))
    added = ("pixels_linear", "pixels_knn", "scratch")
    assert after.keys() - before.keys() == {f"few/{n}/{kind}" for n in ("1", "5", "all") for kind in added} | {
        f"few/{n}/{kind}_std" for n in ("1", "5") for kind in added
    }
    assert all(0 <= value <= 1 for value in after.values())
    assert {key: after[key] for key in before} == before, "nothing was trained, and the draws are the same"


def test_cells_are_mean_and_deviation_over_the_draws() -> None:
    data = digits()
    judged = judge(data, "final", encoder())
    found = few_labels(draws=4)(judged)
    x, queries = standardize_features(judged.train.x, judged.test.x)
    y = judged.train.y
    scores = [
        fit_probe(x[rows], y[rows], 1e-2).accuracy(queries, judged.test.y)
        for rows in (sample_labels(y, 5, i) for i in range(4))
    ]
    assert found["few/5/linear"] == pytest.approx(statistics.fmean(scores))
    assert found["few/5/linear"].n == 90  # type: ignore[attr-defined]
    assert found["few/5/linear_std"] == pytest.approx(statistics.stdev(scores))


def test_the_last_column_is_what_the_other_evaluators_say() -> None:
    judged = judge(digits(), "final", encoder())
    evaluator = few_labels()
    found = evaluator(judged)
    assert found["few/all/linear"] == evaluator.linear(judged)["linear/top1"]
    assert found["few/all/knn"] == evaluator.knn(judged)["knn/top1"]


def test_scratch_begins_with_the_untrained_network() -> None:
    evaluator, data, network = few_labels(), digits(), encoder()
    evaluator(judge(data, "init", network))
    expected = evaluator(judge(data, "final", network))
    with torch.no_grad():
        network[1].weight.fill_(0)  # as if training had spoilt it
    found = evaluator(judge(data, "final", network))
    assert found["few/all/scratch"] == expected["few/all/scratch"]
    assert found["few/all/linear"] < expected["few/all/linear"]


@pytest.mark.parametrize("judged_before", [False, True])
def test_without_the_untrained_network_one_line_and_no_row(
    judged_before: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """It may have started from weights trained elsewhere, with which nothing can be trained from scratch."""
    warn_once.cache_clear()
    evaluator = few_labels()
    if judged_before:
        evaluator(judge(digits(), "init", encoder(), loaded=True))
    found = evaluator(judge(digits(), "final", encoder()))
    assert not any("scratch" in key for key in found)
    assert caplog.text.count("few_labels: nothing is trained from scratch") == 1


def test_text_has_probes_and_neighbours_only() -> None:
    found = few_labels()(judge(digits(modality="text"), "final", encoder()))
    assert {key.split("/")[2].removesuffix("_std") for key in found} == {"linear", "knn"}


@pytest.mark.parametrize("settings", [{"labels": []}, {"labels": [0, 10]}, {"draws": 1}, {"shares": [1.0]}])
def test_bad_settings_name_key_and_value(settings: dict) -> None:
    ((key, value),) = settings.items()
    with pytest.raises(ValueError, match=rf"few_labels.*{key}={value}".replace("[", r"\[").replace("]", r"\]")):
        few_labels(**settings)


METRICS = {
    "knn/top1": 0.9,
    "init/few/1/linear": 0.351,
    "init/few/1/linear_std": 0.02,
    "init/few/all/linear": 0.95,
    "few/1/linear": 0.773,
    "few/1/linear_std": 0.0214,
    "few/10/linear": 0.965,
    "few/10/linear_std": 0.004,
    "few/all/linear": 0.99,
    "few/all/knn": 0.985,
}


def test_summary_orders_columns_and_leaves_out_what_is_unknown() -> None:
    columns, rows = summarize(METRICS, "SimCLR")
    assert columns == ["1 label per class", "10 labels per class", "all labels"]
    assert [row.name for row in rows] == ["before training, linear probe", "SimCLR, kNN", "SimCLR, linear probe"]
    assert rows[0].cells == [(0.351, 0.02), None, (0.95, None)]
    assert rows[2].cells == [(0.773, 0.0214), (0.965, 0.004), (0.99, None)]
    assert summarize({"knn/top1": 0.9}, "SimCLR") == ([], [])


def test_shares_stand_between_numbers_and_all() -> None:
    found = METRICS | {"few/10%/linear": 0.8, "few/1%/linear": 0.6, "few/2/linear": 0.7}
    columns = [
        "1 label per class",
        "2 labels per class",
        "10 labels per class",
        "1 % of the labels",
        "10 % of the labels",
    ]
    assert summarize(found, "SimCLR")[0] == [*columns, "all labels"]


def test_the_first_match_with_training_from_scratch_is_said_in_words() -> None:
    assert first_match(METRICS, "SimCLR") is None
    sentence = first_match(METRICS | {"few/all/scratch": 0.96}, "SimCLR")
    assert sentence == (
        "SimCLR, linear probe, with 10 labels per class: 96.5%; trained from scratch, with all labels: 96.0%"
    )
    sentence = first_match(METRICS | {"few/all/scratch": 0.995}, "SimCLR")
    assert sentence == "no row of SimCLR reaches what training from scratch with all labels does, 99.5%"


def test_table_in_per_cent() -> None:
    console = Console(width=120, file=None, record=True)
    with console.capture() as shown:
        console.print(few_labels_table(METRICS, "SimCLR"))
    lines = shown.get().splitlines()
    (last,) = [line for line in lines if "SimCLR, linear probe" in line]
    assert [cell.strip() for cell in last.split("│")[2:5]] == ["77.3 ± 2.1", "96.5 ± 0.4", "99.0"]


def test_below_each_accuracy_stands_its_binomial_interval() -> None:
    shares = {key: value if key.endswith("_std") else Proportion(value, 400) for key, value in METRICS.items()}
    console = Console(width=120, file=None, record=True)
    with console.capture() as shown:
        console.print(few_labels_table(shares, "SimCLR"))
    lines = shown.get().splitlines()
    assert "n = 400 test examples" in lines[1]
    (place,) = [i for i, line in enumerate(lines) if "SimCLR, linear probe" in line]
    below = [cell.strip() for cell in lines[place + 1].split("│")[2:5]]
    assert below == ["72.9 to 81.1", "94.2 to 97.9", "97.5 to 99.6"]
