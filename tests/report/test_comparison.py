"""Rows are runs that differ in their seed only, and what they say is right and honest."""

from typing import Any

import pytest

from benchmarks.label_free import ACCURACY, recorded_runs
from ssl_zoo.report import results
from ssl_zoo.report.choosing import across_methods, scored_runs
from ssl_zoo.report.comparison import WITHOUT_LABELS, Comparison, compare
from ssl_zoo.report.row import COMPUTE, ComparisonRow


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


def test_one_value_has_no_interval() -> None:
    row = only(compare([run(knn=0.8)]))
    assert row.estimates["knn/top1"].half_width is None
    assert row.cell("knn/top1") == "80.0"


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
    assert row.cell("knn/top1") == "85.0 (73.7 to 92.0)"  # logit 0.85 -+ 0.08957 / (0.85 * 0.15)
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
    assert "FLOPs" not in notes


def test_notes_say_how_it_was_computed() -> None:
    budgets = [{"kind": "epochs", "value": 40, "flops": flops} for flops in (1e12, 3e12)]
    runs = [run(m, s, 0.8 + s / 100 + i * s**2 / 70, budget=budgets[i]) for s in (0, 1) for i, m in enumerate("ab")]
    notes = "\n".join(compare(runs).notes)
    assert "n = 2 is too few: the interval reaches 12.7 standard errors" in notes
    assert "corrected by Holm for all pairs of rows, since the best one was chosen by its value" in notes
    assert "paired by seed, Student's t" in notes
    assert "McNemar" not in notes
    assert "Training FLOPs differ by a factor of up to 3.0: 1e+12 (a), 3e+12 (b)." in notes
    assert "corrected by Holm for all comparisons shown" in "\n".join(compare(runs, "a").notes)


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


def test_without_an_accuracy_nothing_is_judged() -> None:
    runs = [run(name, metrics={"rankme": 3.0}) for name in ("simclr", "byol")]
    assert compare(runs).verdicts == [WITHOUT_LABELS]
    assert compare(runs[:1]).verdicts == []
    for kind, recorded in recorded_runs().items():
        correlation, _ = across_methods(scored_runs(recorded, "rankme", ACCURACY))
        assert f"{correlation:+.2f} for {kind}" in WITHOUT_LABELS


def test_the_first_headline_is_one_that_all_rows_have() -> None:
    runs = [run("supervised", metrics={"classifier/top1": 0.9, "knn/top1": 0.7, "linear/top1": 0.8})]
    runs += [run("simclr", metrics={"knn/top1": 0.6, "linear/top1": 0.7}), run("byol", metrics={"knn/top1": 0.65})]
    assert compare(runs).headlines == ["knn/top1", "linear/top1", "classifier/top1"]
    assert compare(runs[:2]).headlines == ["linear/top1", "knn/top1", "classifier/top1"]
    assert [row.names["method"] for row in compare(runs).rows] == ["supervised", "byol", "simclr"]


def test_a_baseline_is_named_by_method_settings_or_label() -> None:
    runs = [run(config={"t": t}, overrides=[f"t={t}"]) for t in (1, 2)] + [run("byol", config={"t": 1})]
    for named in ("t=2", "simclr (t=2)"):
        found = compare(runs, named)
        assert found.baseline is not None
        assert found.baseline.names["settings"] == "t=2"
        assert len(found.differences("knn/top1")) == 2
    with pytest.raises(ValueError, match=r"baseline=simclr: several rows .* simclr \(t=1\), simclr \(t=2\)"):
        compare(runs, "simclr")
    with pytest.raises(ValueError, match=r"baseline=mae: no row .* byol"):
        compare(runs, "mae")
    with pytest.raises(ValueError, match="no completed run"):
        compare([], "mae")


def test_each_data_set_and_backbone_has_its_own_baseline() -> None:
    runs = [
        run(method, data=data, backbone=backbone)
        for method in ("simclr", "byol")
        for data in ("digits", "cifar10")
        for backbone in ("resnet18", "vit")
    ]
    found = compare(runs, "byol").differences("knn/top1")
    assert len(found) == 4
    for one in found:
        assert one.row.names | {"method": "byol"} == one.baseline.names


def test_the_best_of_each_data_set_is_its_baseline() -> None:
    runs = [run(method, knn=knn, data=data) for data in "ab" for method, knn in (("x", 0.8), ("y", 0.7), ("z", 0.6))]
    found = compare(runs).differences("knn/top1")
    names = [tuple(row.names["data"] + row.names["method"] for row in (one.row, one.baseline)) for one in found]
    assert names == [("ay", "ax"), ("az", "ax"), ("bx", "ax"), ("by", "bx"), ("bz", "bx")]
    assert found[2].reason == "they differ in data (b and a)"


def test_costs_are_there_to_plot_against() -> None:
    budget = {"kind": "epochs", "value": 40, "seconds": 60.0, "flops": 3e12, "examples": 640}
    row = only(compare([run(budget=budget), run(seed=1, budget=budget)]))
    assert [row.estimates[key].values for key in COMPUTE] == [(3e12, 3e12), (60.0, 60.0), (640, 640)]
    assert [one["seed"] for one in row.runs] == [0, 1]
    assert "flops" not in compare([run(budget=budget)]).metrics


def test_nothing_completed() -> None:
    comparison = compare([run(status="running")])
    assert comparison.rows == []
    assert comparison.notes == ["No run completed."]
