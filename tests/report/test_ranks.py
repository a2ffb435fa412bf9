"""Ranks agree with scipy's, and no row is ranked on sets that another has not seen."""

from typing import Any

import numpy as np
import pytest
from scipy.stats import rankdata

from ssl_zoo.report import results
from ssl_zoo.report.comparison import Comparison, compare
from ssl_zoo.report.ranks import Ranking, average_ranks, find_rankings

BUDGET = {"kind": "epochs", "value": 1}


def comparison(**metrics: dict[str, float]) -> Comparison:
    runs: list[Any] = []
    for method, found in metrics.items():
        told: dict[str, Any] = {"method": method, "data": "digits", "seed": 0, "budget": BUDGET, "metrics": found}
        runs.append(results.empty_results("completed", **told) | {"folder": method})
    return compare(runs)


def only(made: Comparison) -> Ranking:
    (found,) = find_rankings(made.rows, made.label)
    return found


@pytest.mark.parametrize("values", [[0.3, 0.1, 0.2], [0.5, 0.5, 0.1, 0.5], [1.0], [0.0, 0.0]])
def test_ranks_are_scipys(values: list[float]) -> None:
    assert average_ranks(np.array(values)).tolist() == rankdata(np.negative(values)).tolist()


def test_what_is_unknown_has_no_rank_and_moves_none() -> None:
    assert average_ranks(np.array([0.1, np.nan, 0.2])) == pytest.approx([2, np.nan, 1], nan_ok=True)


def test_the_mean_is_over_shared_sets_and_others_are_named() -> None:
    def measured(a: float, b: float, **more: float) -> dict[str, float]:
        return {"transfer/a/top1": a, "transfer/b/top1": b, "transfer/mean/top1": 0.9, "transfer_knn/a/top1": a} | more

    made = comparison(
        byol=measured(0.7, 0.5), dino=measured(0.7, 0.6, **{"transfer/c/top1": 0.9}), mae=measured(0.8, 0.1), mlm={}
    )
    found = only(made)
    assert found.kind == "transfer"  # neighbours have one set alone
    assert list(found.sets) == ["a", "b", "c"]
    assert {row.names["method"]: mean for row, mean in zip(found.rows, found.mean_ranks, strict=True)} == {
        "dino": (2.5 + 1) / 2,
        "mae": (1 + 3) / 2,
        "byol": (2.5 + 2) / 2,
    }
    assert found.mean_ranks.tolist() == sorted(found.mean_ranks)
    assert found.notes[0].startswith("c is not in the mean rank, since it was not measured for ")
    assert {"byol", "mae"} <= set(found.notes[0].replace(",", "").rstrip(".").split())
    assert found.notes[1] == "Not measured at all for mlm."


@pytest.mark.parametrize("others", [{}, {"transfer/a/top1": 0.3}, {"transfer/c/top1": 0.3, "transfer/d/top1": 0.3}])
def test_rows_that_share_too_little_are_not_ranked(others: dict[str, float]) -> None:
    made = comparison(byol={"transfer/a/top1": 0.5, "transfer/b/top1": 0.5}, dino=others)
    assert find_rankings(made.rows, made.label) == []


def test_correlations_are_ranked_too() -> None:
    keys = [f"sentence_pairs/{name}/spearman" for name in ("stsb", "sick")]
    found = only(comparison(mlm=dict.fromkeys(keys, 0.2), simcse=dict.fromkeys(keys, 0.6)))
    assert ([row.names["method"] for row in found.rows], found.mean_ranks.tolist()) == (["simcse", "mlm"], [1, 2])
