"""Rows are runs that differ in their seed only, and what they say is right and honest."""

from typing import Any

import numpy as np
import pytest
from scipy import stats

from ssl_zoo.report import results
from ssl_zoo.report.comparison import Comparison, ComparisonRow, Estimate, compare


def run(method: str = "simclr", seed: int | None = 0, knn: float | None = 0.8, **changes: Any) -> dict[str, Any]:
    told: dict[str, Any] = {
        "method": method,
        "backbone": "resnet18",
        "data": "digits",
        "seed": seed,
        "folder": "runs/0",
    }
    told["budget"] = {"kind": "epochs", "value": 40, "seconds": 60.0}
    told["metrics"] = {"knn/top1": knn, "init/knn/top1": 0.3}
    told["environment"] = {"device": "cpu", "precision": "bf16-mixed", "torch": "2.15"}
    return results.empty_results("completed", **told) | changes


def only(comparison: Comparison) -> ComparisonRow:
    (row,) = comparison.rows
    return row


@pytest.mark.parametrize("values", [(0.7, 0.9), (0.81, 0.86, 0.88), (1.0, 2.0, 3.0, 4.0, 50.0)])
def test_interval_is_students_t(values: tuple[float, ...]) -> None:
    estimate = Estimate(values)
    low, high = stats.t.interval(0.95, len(values) - 1, np.mean(values), stats.sem(values))
    assert estimate.half_width is not None
    assert (estimate.mean - estimate.half_width, estimate.mean + estimate.half_width) == pytest.approx((low, high))


def test_interval_of_three_known_values() -> None:
    """1, 2, 3: standard deviation 1, t(0.975, 2) = 4.3027, so 4.3027 / sqrt(3) = 2.4841."""
    assert Estimate((1.0, 2.0, 3.0)).half_width == pytest.approx(2.4841, abs=1e-4)


def test_one_value_has_no_interval() -> None:
    row = only(compare([run(knn=0.8)]))
    assert row.estimates["knn/top1"].half_width is None
    assert row.cell("knn/top1") == "80.0"


def test_an_interval_ends_at_0_and_100_percent() -> None:
    row = only(compare([run(seed=seed, knn=knn) for seed, knn in enumerate((0.977, 0.985))]))
    assert row.cell("knn/top1") == "98.1 (93.0 to 100.0)"
    assert row.estimates["knn/top1"].interval(True) == (pytest.approx(0.9302, abs=1e-4), 1.0)
    low = only(compare([run(seed=seed, knn=knn) for seed, knn in enumerate((0.01, 0.05))]))
    assert low.cell("knn/top1") == "3.0 (0.0 to 28.4)"
    assert low.estimates["knn/top1"].interval(False) == (
        pytest.approx(-0.2241, abs=1e-4),
        pytest.approx(0.2841, abs=1e-4),
    )


def test_one_run_has_the_binomial_interval_of_its_test_examples() -> None:
    comparison = compare([run(knn=0.8, counts={"knn/top1": 400, "init/knn/top1": 400})])
    assert only(comparison).cell("knn/top1") == "80.0 (75.8 to 83.6)"
    assert only(comparison).cell("init/knn/top1") == "30.0 (25.7 to 34.7)"
    notes = "\n".join(comparison.notes)
    assert "knn/top1: of 400 test examples, whose choice alone moves an accuracy by up to ± 3.9 points" in notes
    assert only(compare([run(knn=1.0, counts={"knn/top1": 48})])).cell("knn/top1") == "100.0 (92.6 to 100.0)"
    different = [run(seed=seed, counts={"knn/top1": n}) for seed, n in enumerate((400, 500))]
    assert only(compare(different)).estimates["knn/top1"].examples is None


def test_an_accuracy_that_is_none_breaks_no_report() -> None:
    assert only(compare([run(knn=80.0, counts={"knn/top1": 400})])).cell("knn/top1") == "8000.0"


def test_seeds_make_one_row_with_its_baseline_and_costs() -> None:
    speed = {"examples_per_second": 1234.5}
    row = only(compare([run(seed=seed, knn=knn, speed=speed) for seed, knn in enumerate((0.81, 0.86, 0.88))]))
    assert row.seeds == (0, 1, 2)
    assert row.cell("knn/top1") == "85.0 ± 9.0"  # 0.036056 * 4.3027 / sqrt(3) = 0.08957
    assert row.cell("init/knn/top1") == "30.0 ± 0.0"
    assert row.cell("seconds") == "60"
    assert row.cell("examples/s") == "1,234"


def test_seeds_and_what_only_watches_a_run_do_not_split_a_row() -> None:
    configs = [
        {
            "seed": seed,
            "data": {"seed": seed, "size": 3},
            "logger": {"name": seed},
            "trainer": {"checkpoint_every": seed},
        }
        for seed in (1, 2)
    ]
    assert only(compare([run(seed=config["seed"], config=config) for config in configs])).seeds == (1, 2)


@pytest.mark.parametrize(
    "changes",
    [
        {"backbone": "vit_tiny"},
        {"data": "cifar10"},
        {"experiment": "long"},
        {"budget": {"kind": "epochs", "value": 80}},
        {"budget": {"kind": "steps", "value": 40}},
        {"config": {"optimizer": {"lr": 0.1}}},
    ],
)
def test_anything_else_splits_it(changes: dict[str, Any]) -> None:
    comparison = compare([run(), run(seed=1, **changes)])
    assert [len(row.seeds) for row in comparison.rows] == [1, 1]
    assert len(comparison.varying) == 2  # the method and what differs: the rows can be told apart


def test_rows_of_the_same_names_show_the_overrides_that_differ() -> None:
    said = [["method=simclr", "views=weak", "seed=0"], ["method=simclr", "seed=0"]]
    comparison = compare([run(overrides=text, config={"p": place}) for place, text in enumerate(said)])
    assert [row.names["settings"] for row in comparison.rows] == ["views=weak", ""]


def test_and_the_settings_where_overrides_do_not_tell() -> None:
    comparison = compare([run(config={"method": {"temperature": t, "dim": 8}}) for t in (0.1, 0.5)])
    assert [row.names["settings"] for row in comparison.rows] == ["method.temperature=0.1", "method.temperature=0.5"]
    assert comparison.table(["knn/top1"])[0][:2] == ["method", "settings"]


def test_the_best_row_of_a_data_set_comes_first() -> None:
    runs = [run("a", knn=0.5), run("b", knn=0.9), run("c", knn=None), run("d", knn=0.7, data="cifar10")]
    assert [row.names["method"] for row in compare(runs).rows] == ["d", "b", "a", "c"]
    runs = [run(name, metrics={"mask/perplexity": p}) for name, p in (("a", 90.0), ("b", 80.0))]
    assert [row.names["method"] for row in compare(runs).rows] == ["b", "a"]


def test_table_puts_each_baseline_beside_its_metric() -> None:
    head, line = compare([run(metrics={"linear/top1": 0.9, "init/linear/top1": 0.4, "rankme": 12.34567})]).table(
        ["linear/top1", "rankme"]
    )
    assert head == ["method", "linear/top1 %", "init/linear/top1 %", "rankme", "n", "seconds"]
    assert line == ["simclr", "90.0", "40.0", "12.35", "1", "60"]


def test_a_metric_that_came_out_wrong_is_not_hidden() -> None:
    row = only(compare([run(seed=0, knn=0.8), run(seed=1, knn=None), run(seed=2, knn=0.8)]))
    assert row.cell("knn/top1") == "80.0 ± 0.0 (n=2)"


def test_headlines_are_accuracies_and_perplexity() -> None:
    metrics = {"rankme": 10.0, "mask/perplexity": 80.0, "mask/loss": 4.4, "knn/top1": 0.5, "init/rankme": 1.0}
    comparison = compare([run(metrics=metrics)])
    assert comparison.metrics == ["knn/top1", "mask/loss", "mask/perplexity", "rankme"]
    assert comparison.headlines == ["knn/top1", "mask/perplexity"]


def test_recall_is_an_accuracy_and_a_correlation_has_its_interval() -> None:
    keys = ["retrieval/text_to_image/recall10", "sentence_pairs/stsb/spearman"]
    metrics = {keys[0]: 0.05, keys[1]: 0.7, "retrieval/recalled": 3.0}
    comparison = compare([run(metrics=metrics, counts={keys[0]: 1000, keys[1]: 1379})])
    assert comparison.headlines == keys
    assert only(comparison).cell(keys[0]) == "5.0 (3.8 to 6.5)"
    assert only(comparison).cell(keys[1]) == "0.700 (0.669 to 0.729)"
    seeds = compare([run(seed=seed, metrics={keys[1]: value}) for seed, value in enumerate((0.7, 0.8))])
    assert only(seeds).cell(keys[1]) == "0.75 ± 0.64"


@pytest.mark.parametrize(
    ("half_width_of", "text"),
    [((80.0, 81.0, 83.0), "81.3 ± 3.8"), ((7900.0, 8000.0, 8100.0), "8000 ± 248"), ((0.01, 0.012), "0.011 ± 0.013")],
)
def test_numbers_have_the_decimals_their_interval_deserves(half_width_of: tuple[float, ...], text: str) -> None:
    runs = [run(seed=seed, metrics={"rankme": value}) for seed, value in enumerate(half_width_of)]
    assert only(compare(runs)).cell("rankme") == text


def test_notes_say_what_differs() -> None:
    gpu = {"device": "H200", "precision": "bf16-mixed", "torch": "2.15"}
    notes = "\n".join(compare([run(), run("byol", environment=gpu, budget={"kind": "epochs", "value": 80})]).notes)
    assert "Alike in all rows: data digits, backbone resnet18." in notes
    assert "Test metrics are of the last epoch." in notes
    assert "n = 1 has no interval over seeds" in notes
    assert "Student" not in notes
    assert "Budgets differ: the rows are not at equal compute." in notes
    assert "The runs differ in device: H200, cpu." in notes
    assert "precision" not in notes


def test_notes_name_a_seed_that_counts_twice() -> None:
    notes = "\n".join(compare([run(seed=0), run(seed=0), run(seed=1)]).notes)
    assert "simclr: seed 0 counts more than once" in notes
    assert "Budgets differ" not in notes


def test_runs_that_did_not_complete_are_listed_and_in_no_row() -> None:
    error = {"type": "ValueError", "message": "data.path=x:\n no such folder"}
    failed = run(status="failed", error=error, metrics={"knn/top1": 0.99})
    stopped = run("byol", None, status="interrupted")
    comparison = compare([run(), failed, stopped])
    assert only(comparison).seeds == (0,)
    assert comparison.incomplete_table()[1:] == [
        ["digits", "simclr", "0", "failed", "ValueError: data.path=x: no such folder", "runs/0"],
        ["digits", "byol", "", "interrupted", "", "runs/0"],
    ]


def test_nothing_completed() -> None:
    comparison = compare([run(status="running")])
    assert comparison.rows == []
    assert comparison.notes == ["No run completed."]
