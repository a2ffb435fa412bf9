"""What a comparison says of each row: the right test, Holm's correction, and a sentence that claims no more than it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from ssl_zoo.report import results
from ssl_zoo.report.comparison import Comparison, compare
from ssl_zoo.report.difference import Difference
from ssl_zoo.report.outcomes import Outcomes, write_outcomes
from ssl_zoo.report.paired import MCNEMAR, PAIRED_T, holm

KEY = "linear/top1"


def run(method: str, seed: int | None, value: float | None, folder: Path = Path("none"), **changes: Any) -> Any:
    told: dict[str, Any] = {"method": method, "backbone": "resnet18", "data": "digits", "seed": seed}
    told["budget"] = {"kind": "epochs", "value": 40}
    return results.empty_results("completed", metrics={KEY: value}, **told) | {"folder": folder} | changes


def rows(**values: list[float]) -> list[Any]:
    return [run(method, seed, value) for method, found in values.items() for seed, value in enumerate(found)]


def only(comparison: Comparison, key: str = KEY) -> Difference:
    (found,) = comparison.differences(key)
    return found


BYOL, SIMCLR = [0.80, 0.802, 0.801, 0.804, 0.80], [0.811, 0.815, 0.813, 0.814, 0.814]


def test_seeds_are_paired() -> None:
    runs = rows(byol=BYOL, simclr=SIMCLR)
    found = only(compare(runs[::-1], "byol"))
    expected = stats.ttest_rel(SIMCLR, BYOL)
    assert (found.row.names["method"], found.baseline.names["method"]) == ("simclr", "byol")
    assert (found.test, found.n, found.effect_name) == (PAIRED_T, 5, "Hedges' g_z")
    assert (found.p, found.p_holm, found.mean) == pytest.approx((expected.pvalue, expected.pvalue, 0.012))
    assert (found.low, found.high) == pytest.approx(tuple(expected.confidence_interval()))
    assert found.is_shown
    assert found.sentence == "simclr is 1.2 ± 0.2 points above byol, 5 seeds, p < 0.001."
    below = only(compare(runs, "simclr"))
    assert below.sentence == "byol is 1.2 ± 0.2 points below simclr, 5 seeds, p < 0.001."


def test_only_shared_seeds_count() -> None:
    runs = [*rows(byol=BYOL), *(run("simclr", seed, value) for seed, value in ((4, 0.82), (3, 0.81), (9, 0.1)))]
    found = only(compare(runs, "byol"))
    assert (found.n, found.mean) == (2, pytest.approx(0.013))
    assert only(compare([*rows(byol=[0.8, 0.81]), run("a", 7, 0.8)], "byol")).reason == "they share no seed"


def test_two_seeds_are_too_few_and_how_many_would_do_is_said() -> None:
    found = only(compare(rows(byol=[0.80, 0.81], simclr=[0.811, 0.815]), "byol"))
    assert found.sentence == (
        "No difference between simclr and byol can be shown with 2 seeds (0.8 ± 3.8 points, p = 0.23); "
        "2 seeds are too few to rely on; 8 would show 0.5 points."
    )
    assert found.seeds == 8
    assert found.effect is None
    certain = only(compare(rows(byol=[0.70, 0.71], simclr=[0.80, 0.8101]), "byol"))
    assert certain.sentence.endswith("p < 0.001; 2 seeds are too few to rely on.")
    enough = only(compare(rows(byol=BYOL, simclr=[value + 0.001 * (-1) ** i for i, value in enumerate(BYOL)]), "byol"))
    assert enough.sentence.endswith("; 0.5 points would probably have been shown.")


def test_holm_is_over_all_comparisons_with_a_named_baseline() -> None:
    runs = rows(byol=BYOL, simclr=[0.81, 0.805, 0.813, 0.82, 0.801], moco=[0.79, 0.81, 0.80, 0.80, 0.79])
    found = compare(runs, "byol").differences(KEY)
    assert [each.p_holm for each in found] == pytest.approx(holm([each.p or 0 for each in found]))
    assert all("(Holm)" in each.sentence for each in found)


def test_the_best_row_was_chosen_by_its_value_so_all_pairs_count() -> None:
    runs = rows(byol=BYOL, simclr=SIMCLR, moco=[0.79, 0.805, 0.80, 0.801, 0.79])
    comparison = compare(runs)
    assert comparison.baseline is comparison.rows[0]
    found = comparison.differences(KEY)
    assert [(each.row.names["method"], each.baseline.names["method"]) for each in found] == [
        ("byol", "simclr"),
        ("moco", "simclr"),
    ]
    third = stats.ttest_rel(BYOL, [0.79, 0.805, 0.80, 0.801, 0.79]).pvalue
    assert [each.p_holm for each in found] == pytest.approx(holm([*(each.p or 0 for each in found), third])[:2])
    assert comparison.verdicts[0] == "simclr has the highest linear/top1, 81.3 ± 0.2 %."
    assert comparison.verdicts[1:] == [each.sentence for each in found]


def one_seed(folder: Path, method: str, right: np.ndarray, examples: str = "a") -> Any:
    folder.mkdir()
    write_outcomes(folder, {KEY: Outcomes(right, examples)})
    return run(method, 0, float(right.mean()), folder)


def test_one_seed_is_tested_over_examples(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    a = rng.random(2000) < 0.8
    b = a ^ (rng.random(2000) < np.where(a, 0.1, 0.05))
    found = only(compare([one_seed(tmp_path / "a", "simclr", a), one_seed(tmp_path / "b", "byol", b)], "byol"))
    gained, lost = int((a & ~b).sum()), int((b & ~a).sum())
    assert (found.test, found.n, found.seeds) == (MCNEMAR, 2000, None)
    assert found.p == pytest.approx(stats.binomtest(gained, gained + lost).pvalue)
    assert "one seed, 2,000 test examples, p < 0.001" in found.sentence
    assert found.sentence.endswith("it is one of these two networks, and says nothing of other seeds.")


def test_what_is_not_alike_is_not_paired(tmp_path: Path) -> None:
    right = np.arange(100) < 70
    a, b = one_seed(tmp_path / "a", "simclr", right), one_seed(tmp_path / "b", "byol", right[::-1], "b")
    assert only(compare([a, b], "byol")).reason == "they share one seed, and were tested on different examples"
    other = b | {"metrics": {KEY: 0.9}}  # results of another evaluation than that of the outcomes
    not_kept = "they share one seed, and which test examples were right was not kept"
    assert only(compare([a, other], "byol")).reason == not_kept
    found = only(compare([a, run("byol", 0, 0.7, tmp_path / "none")], "byol"))
    assert (found.reason, found.p, found.mean) == (not_kept, None, 0)
    assert "Run both with several seeds" in found.sentence
    (tmp_path / "b" / "correct.npz").write_bytes(b"x")
    assert "damaged" in str(only(compare([a, b], "byol")).reason)
    assert "counts more than once" in str(only(compare([a, a, b], "byol")).reason)


def test_what_cannot_be_compared_is_compared_only_when_asked() -> None:
    budget = {"kind": "epochs", "value": 80}
    runs = [*rows(byol=BYOL), *(one | {"budget": budget} for one in rows(simclr=SIMCLR))]
    found = only(compare(runs, "byol"))
    assert (found.mean, found.p, found.test) == (None, None, None)
    assert found.sentence == (
        "simclr (80 epochs) is not compared with byol (40 epochs): they differ in budget (80 epochs and 40 epochs)."
    )
    across = only(compare(runs, "byol", across=True))
    assert across.p is not None
    assert across.sentence.endswith("p < 0.001, although they differ in budget (80 epochs and 40 epochs).")


def test_a_metric_that_is_no_accuracy() -> None:
    runs = [run(name, seed, None, metrics={"mask/perplexity": value}) for name, found in (("mlm", (80.0, 82.0, 81.0)), ("clm", (90.0, 93.0, 91.0))) for seed, value in enumerate(found)]  # fmt: skip  # noqa: E501
    found = only(compare(runs), "mask/perplexity")
    assert found.baseline.names["method"] == "mlm"
    assert found.sentence == "clm is 10.3 ± 1.4 above mlm, 3 seeds, p = 0.001."
