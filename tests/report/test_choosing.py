import math
import random

import pytest
from scipy.stats import kendalltau, spearmanr

from ssl_zoo.report.choosing import (
    SCORES,
    ScoredRun,
    across_methods,
    clid_scores,
    halves,
    regret,
    regret_of_chance,
    scored_runs,
    within_methods,
)


def some_runs(count: int = 24, methods: int = 6) -> list[ScoredRun]:
    rng = random.Random(0)
    return [ScoredRun(f"m{i % methods}", rng.random(), rng.random()) for i in range(count)]


def test_across_is_spearmans_correlation_of_the_means() -> None:
    runs = some_runs()
    means = [
        [sum(run[key] for run in runs if run.method == f"m{m}") / 4 for m in range(6)]  # type: ignore[misc]
        for key in (1, 2)
    ]
    assert across_methods(runs) == (pytest.approx(spearmanr(*means)[0]), 6)
    assert math.isnan(across_methods(runs[:2])[0])
    assert math.isnan(across_methods([run._replace(score=1.0) for run in runs])[0])


def test_within_is_kendalls_tau_where_there_is_one_method() -> None:
    runs = some_runs(methods=1)
    tau, pairs = within_methods(runs)
    assert tau == pytest.approx(kendalltau([run.score for run in runs], [run.accuracy for run in runs])[0])
    assert pairs == 24 * 23 // 2


def test_within_knows_nothing_of_differences_between_methods() -> None:
    """Simpson: across methods the score is right, within each it is wrong."""
    runs = [ScoredRun(f"m{m}", 10 * m - step, 10 * m + step) for m in range(3) for step in range(3)]
    assert across_methods(runs) == (1, 3)
    assert within_methods(runs) == (-1, 9)
    assert math.isnan(within_methods(runs[::3])[0])
    assert within_methods([ScoredRun("m", 1, 0.5), ScoredRun("m", 2, 0.5)])[1] == 0
    assert within_methods([ScoredRun("m", 1, 0.5), ScoredRun("m", 1, 0.6)]) == (0, 1)


def test_regret_is_what_the_choice_costs() -> None:
    runs = [ScoredRun("a", 1, 0.5), ScoredRun("b", 3, 0.6), ScoredRun("c", 2, 0.9)]
    assert regret(runs) == pytest.approx(0.3)
    assert regret([run._replace(score=run.accuracy) for run in runs]) == 0
    assert regret([run._replace(score=0.0) for run in runs]) == pytest.approx(regret_of_chance(runs))
    assert regret_of_chance(runs) == pytest.approx(0.9 - 2 / 3)


def test_scores_are_turned_so_that_higher_is_better_and_unknown_ones_are_left_out() -> None:
    runs = [
        ("a", {"alpha_req": 0.7, "linear/top1": 0.5}),
        ("b", {"alpha_req": 1.1, "linear/top1": 0.6}),
        ("c", {"alpha_req": None, "linear/top1": 0.6}),
        ("d", {"alpha_req": 1.0}),
    ]
    assert scored_runs(runs, "alpha_req", "linear/top1") == [
        ScoredRun("a", pytest.approx(-0.3), 0.5),
        ScoredRun("b", pytest.approx(-0.1), 0.6),
    ]
    assert SCORES["alignment"](0.2) < SCORES["alignment"](0.1)


def test_clid_is_the_sum_of_the_standardised_parts() -> None:
    keys = ("clid/learnability", "clid/dimension")
    runs = [dict(zip(keys, pair, strict=True)) for pair in ((0.2, 5.0), (0.4, 9.0))]
    assert clid_scores([*runs, {}]) == [pytest.approx(-2), pytest.approx(2), None]
    assert clid_scores(runs[:1]) == [None]
    assert clid_scores([runs[0], runs[0]]) == [0, 0]
    found = scored_runs([("a", runs[0] | {"x": 1}), ("b", runs[1] | {"x": 2})], "clid", "x")
    assert [run.score for run in found] == [pytest.approx(-2), pytest.approx(2)]


def test_halves_share_no_method() -> None:
    first, second = halves(["a", "b", "c", "d", "a"], seed=0)
    assert first | second == {"a", "b", "c", "d"}
    assert not first & second
    assert len(first) == 2
    assert len({frozenset(halves("abcdef", seed)[0]) for seed in range(9)}) > 1
