"""Accuracies by class agree with a naive count, and their differences with scipy's tests."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from ssl_zoo.report import classes, results
from ssl_zoo.report.classes import ByClass
from ssl_zoo.report.comparison import compare
from ssl_zoo.report.outcomes import ClassLabels, Outcomes, write_outcomes
from ssl_zoo.report.paired import holm

KEY = "linear/top1"
Y = np.repeat([0, 1, 2], [40, 60, 20])
NAMES = ["cat", "dog", "eel", "no example"]


def run(folder: Path, method: str, seed: int, right: np.ndarray, **changes: Any) -> Any:
    """The record of a run with these outcomes; `labels` and `examples` replace those of all."""
    folder = folder / f"{method}-{seed}-{changes.get('data', '')}"
    folder.mkdir()
    labels, examples = changes.pop("labels", ClassLabels(Y, NAMES)), changes.pop("examples", "here")
    write_outcomes(folder, {KEY: Outcomes(right, examples, labels)})
    told: dict[str, Any] = {"method": method, "backbone": "resnet18", "data": "digits", "seed": seed}
    told["budget"] = {"kind": "epochs", "value": 40}
    return results.empty_results("completed", metrics={KEY: right.mean()}, **told | changes) | {"folder": folder}


def draw(seed: int, shares: tuple[float, ...]) -> np.ndarray:
    return np.random.default_rng(seed).random(len(Y)) < np.take(shares, Y)


def only(runs: list[Any], baseline: str | None = None) -> ByClass:
    (found,), notes = compare(runs, baseline).classes
    assert notes == []
    return found


def test_seeds_are_paired_class_by_class(tmp_path: Path) -> None:
    outcomes = {
        "byol": [draw(seed, (0.5, 0.9, 0.5)) for seed in range(3)],
        "simclr": [draw(10 + seed, (0.9, 0.9, 0.4)) for seed in range(3)],
    }
    runs = [run(tmp_path, method, seed, its) for method, all_of in outcomes.items() for seed, its in enumerate(all_of)]
    found = only(runs, "byol")
    assert found.counts == [40, 60, 20, 0]
    shares = {
        method: np.array([[its[number == Y].mean() for number in range(3)] for its in all_of])
        for method, all_of in outcomes.items()
    }
    for row, accuracies, differences in zip(found.rows, found.accuracies, found.differences, strict=True):
        method = row.names["method"]
        assert accuracies[:3] == pytest.approx(shares[method].mean(axis=0))
        assert np.isnan(accuracies[3])
        if method == "byol":
            assert differences == []
            continue
        p = [stats.ttest_rel(shares[method][:, number], shares["byol"][:, number]).pvalue for number in range(3)]
        assert [each.p for each in differences[:3]] == pytest.approx(p)
        assert [each.p_holm for each in differences[:3]] == pytest.approx(holm(p))
        assert [each.mean for each in differences[:3]] == pytest.approx((shares[method] - shares["byol"]).mean(axis=0))
        assert differences[3].p is None
    spread = np.abs(shares["simclr"].mean(axis=0) - shares["byol"].mean(axis=0))
    assert found.order == np.argsort(-spread).tolist()  # without the class that has no example


def test_one_seed_is_tested_on_the_examples_of_the_class(tmp_path: Path) -> None:
    a, b = draw(1, (0.5, 0.9, 0.5)), draw(2, (0.95, 0.9, 0.5))
    found = only([run(tmp_path, "byol", 0, a), run(tmp_path, "simclr", 0, b)], "byol")
    (differences,) = [its for its in found.differences if its]
    for number in range(3):
        its = number == Y
        gained, lost = int((b & ~a & its).sum()), int((a & ~b & its).sum())
        expected = stats.binomtest(gained, gained + lost).pvalue
        assert differences[number].p == pytest.approx(expected)
        assert differences[number].mean == pytest.approx((gained - lost) / its.sum())
    assert [each.is_shown for each in differences] == [True, False, False, False]


def test_a_chosen_baseline_costs_the_correction_for_all_pairs(tmp_path: Path) -> None:
    shares = {"byol": (0.5, 0.7, 0.5), "dino": (0.6, 0.7, 0.5), "simclr": (0.9, 0.95, 0.9)}
    runs = [run(tmp_path, method, 0, draw(seed, its)) for seed, (method, its) in enumerate(shares.items())]
    named, chosen = only(runs, "simclr"), only(runs)
    assert [row.names["method"] for row in named.rows] == [row.names["method"] for row in chosen.rows]
    for strict, plain in zip(chosen.differences, named.differences, strict=True):
        for one, other in zip(strict, plain, strict=True):
            assert one.p == other.p
            assert one.p is None or one.p_holm >= other.p_holm  # type: ignore[operator]
    least = min(one.p for its in chosen.differences for one in its if one.p is not None)
    assert min(one.p_holm for its in chosen.differences for one in its if one.p_holm is not None) == pytest.approx(
        3 * 4 * least  # pairs of rows, classes
    )


def test_rows_without_labels_and_of_other_examples(tmp_path: Path) -> None:
    right = draw(0, (0.5, 0.5, 0.5))
    told = {"data": "cifar10", "examples": "there", "labels": ClassLabels(Y[::-1], ["a", "b", "c"])}
    runs = [run(tmp_path, "byol", 0, right), run(tmp_path, "dino", 0, right, labels=None)]
    runs += [run(tmp_path, "simclr", 0, right, **told)]
    found, notes = compare(runs).classes
    assert {(table.data, tuple(table.names)) for table in found} == {
        ("digits", tuple(NAMES)),
        ("cifar10", tuple("abc")),
    }
    assert all(table.differences == [[]] for table in found)
    assert notes[0].startswith("No labels of the test examples were kept by dino")
    assert compare(runs[1:2]).classes == ([], [notes[0].replace(" (digits)", "")])
    damaged = tmp_path / "byol-0-" / results.OUTCOMES_NAME
    damaged.write_bytes(b"x")
    (left,), notes = compare(runs[::2]).classes
    assert left.data == "cifar10"
    assert f"byol is left out: {damaged}: damaged" in notes[0].replace("byol (digits)", "byol")


def test_rows_that_are_not_comparable_have_no_difference(tmp_path: Path) -> None:
    right = draw(0, (0.5, 0.5, 0.5))
    runs = [run(tmp_path, "byol", 0, right), run(tmp_path, "dino", 0, ~right, config={"views": "other"})]
    assert only(runs).differences == [[], []]
    (found,), _ = compare(runs, across=True).classes
    assert [len(its) for its in found.differences] == [0, 4]


def test_too_many_are_not_tested(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(classes, "MAX_TESTS", 3)
    found = only([run(tmp_path, m, 0, draw(i, (0.5, 0.6, 0.7))) for i, m in enumerate(("byol", "dino"))])
    assert {each.p for its in found.differences for each in its} == {None}
