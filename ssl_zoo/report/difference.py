"""Differences between rows and their baseline: paired by seed, tested, corrected for their number, said in words.

Over two shared seeds or more by Student's t; with exactly one, example by example, if both runs have kept which test
examples they got right and these are the same. Otherwise there is no test, and the sentence says why.
"""

import math
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from ssl_zoo.report import paired
from ssl_zoo.report.comparable import differing_conditions
from ssl_zoo.report.estimate import is_accuracy, is_correlation, with_interval
from ssl_zoo.report.outcomes import outcomes_of_run
from ssl_zoo.report.row import ComparisonRow

LEVEL = 0.05
"""Highest p, after Holm's correction, that is called a difference."""
FEW_SEEDS = 2
"""Seeds up to which a test over seeds is called too weak to rely on."""
WORTH_SHOWING = 0.005
"""The difference of accuracies or correlations whose number of seeds is named: half a point."""


@dataclass(frozen=True)
class Difference:
    """A row less its baseline.

    Attributes:
        row: the row.
        baseline: what it is compared with.
        metric: of what.
        mean: the difference, over the shared seeds where it was tested over seeds; None if the rows are not compared.
        low: lower end of its 95 % interval, None without a test.
        high: upper end.
        p: two-sided, None without a test.
        p_holm: corrected for all comparisons of the metric.
        effect: effect size, None where it is not defined.
        effect_name: its name.
        test: name of the test.
        n: shared seeds, or test examples for a test over these.
        seeds: how many would show half a point, None where unknown or more than `paired.MAX_SEEDS`.
        sentence: all of it in plain words.
        reason: why there is no test, None if there is one.
    """

    row: ComparisonRow
    baseline: ComparisonRow
    metric: str
    mean: float | None
    low: float | None
    high: float | None
    p: float | None
    p_holm: float | None
    effect: float | None
    effect_name: str | None
    test: str | None
    n: int
    seeds: int | None
    sentence: str
    reason: str | None

    @property
    def is_shown(self) -> bool:
        """Whether the test shows a difference at 5 %, after Holm's correction."""
        return self.p_holm is not None and self.p_holm <= LEVEL


Pair = tuple[ComparisonRow, ComparisonRow]
"""A row and its baseline."""


def find_differences(
    pairs: Iterable[Pair], metric: str, across: bool, family: Sequence[ComparisonRow], name: Callable[..., str]
) -> list[Difference]:
    """Compares rows with their baselines.

    Args:
        pairs: rows with their baselines.
        metric: what all of them have measured.
        across: compare rows, too, that differ in data, evaluation, views or budget.
        family: rows any of which may have become the baseline, since the best one did: Holm's correction is then for
            all pairs of them. Empty for a baseline that was named beforehand.
        name: what to call a row.
    """
    pairs = list(pairs)
    obstacles = [differing_conditions(row.runs, baseline.runs, metric) for row, baseline in pairs]
    found = [
        None if differs and not across else _test(row, baseline, metric)
        for (row, baseline), differs in zip(pairs, obstacles, strict=True)
    ]
    reported = {frozenset(map(id, pair)) for pair in pairs}
    others = [
        _test(row, other, metric)
        for row, other in combinations(family, 2)
        if frozenset((id(row), id(other))) not in reported
        and (across or not differing_conditions(row.runs, other.runs, metric))
    ]
    tests = [test for test in (*found, *others) if isinstance(test, paired.PairedTest)]
    corrected = iter(paired.holm([test.p for test in tests]))
    return [
        _difference(pair, metric, test, next(corrected), len(tests), differs, name)
        if isinstance(test, paired.PairedTest)
        else _untested(pair, metric, test, differs, name)
        for pair, test, differs in zip(pairs, found, obstacles, strict=True)
    ]


def _test(row: ComparisonRow, baseline: ComparisonRow, metric: str) -> paired.PairedTest | str:
    """The test, or why there is none."""
    a, b = _by_seed(row, metric), _by_seed(baseline, metric)
    shared = sorted(a.keys() & b.keys())
    if not shared:
        return "they share no seed"
    if len(shared) > 1:
        first, second = ([_mean(runs[seed], metric) for seed in shared] for runs in (a, b))
        try:
            return paired.paired_t(first, second, limit=1.0 if is_accuracy(metric) else math.inf)
        except ValueError as error:
            return str(error)
    if len(a[shared[0]]) > 1 or len(b[shared[0]]) > 1:
        return f"seed {shared[0]}, the only one they share, counts more than once"
    try:
        one, other = (outcomes_of_run(runs[shared[0]][0], metric) for runs in (a, b))
    except ValueError as error:
        return str(error)
    if one is None or other is None:
        return "they share one seed, and which test examples were right was not kept"
    if one.examples != other.examples:
        return "they share one seed, and were tested on different examples"
    return paired.mcnemar(one.right, other.right)


def _by_seed(row: ComparisonRow, metric: str) -> dict[int, list[dict[str, Any]]]:
    found: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for run in row.runs:
        if run["seed"] is not None and run["metrics"].get(metric) is not None:
            found[run["seed"]].append(run)
    return found


def _mean(runs: Iterable[dict[str, Any]], metric: str) -> float:
    return statistics.fmean(run["metrics"][metric] for run in runs)


# ---- In words ----


def describe_tests(differences: Sequence[Difference], chosen: bool) -> list[str]:
    """Notes on how the differences were tested.

    Args:
        differences: those of one metric.
        chosen: whether the baseline is the best row, rather than one that was named beforehand.
    """
    tests = {each.test for each in differences}
    lines = []
    if paired.PAIRED_T in tests:
        lines.append(
            "Differences over seeds: paired by seed, Student's t. They hold for these test examples and any seed. "
            f"As many seeds as are named would show the difference with a probability of {paired.POWER:.0%}, if the "
            "spread is as here."
        )
    if paired.MCNEMAR in tests:
        lines.append(
            "Differences over test examples, of one seed: McNemar's exact test and Tango's score interval. They hold "
            "for these networks and any test examples; another seed may reverse them."
        )
    if lines:
        family = "all pairs of rows, since the best one was chosen by its value" if chosen else "all comparisons shown"
        lines.append(f"p is two-sided and corrected by Holm for {family}; the intervals are not.")
    return lines


def _untested(pair: Pair, metric: str, reason: str | None, differs: list[str], name: Callable[..., str]) -> Difference:
    row, baseline = (name(one) for one in pair)
    mean = None
    if reason is None:
        reason = f"they differ in {', '.join(differs)}"
        sentence = f"{row} is not compared with {baseline}: {reason}."
    else:
        mean = pair[0].estimates[metric].mean - pair[1].estimates[metric].mean
        size = _amount(metric, mean, None)
        sentence = f"{row} and {baseline} ({size} apart) cannot be tested: {reason}{_although(differs)}."
        if "one seed" in reason or "no seed" in reason:
            sentence += " Run both with several seeds, such as seed=0,1,2,3,4."
    nothing = (None, None, None, None, None, None, None)
    return Difference(*pair, metric, mean, *nothing, 0, None, sentence, reason)


def _difference(
    pair: Pair,
    metric: str,
    test: paired.PairedTest,
    p_holm: float,
    count: int,
    differs: list[str],
    name: Callable[..., str],
) -> Difference:
    target = WORTH_SHOWING if is_accuracy(metric) or is_correlation(metric) else None
    needed = None
    if test.deviation is not None and target is not None:
        needed = paired.seeds_needed(target, test.deviation, count)
    row, baseline = (name(one) for one in pair)
    chance = f"{_p(p_holm)}{' (Holm)' * (count > 1)}"
    amount = _amount(metric, test.mean, (test.low, test.high))
    over = f"{test.n} seeds" if test.deviation is not None else f"one seed, {test.n:,} test examples"
    if p_holm <= LEVEL:
        size = _amount(metric, abs(test.mean), (test.low, test.high) if test.mean > 0 else (-test.high, -test.low))
        sentence = f"{row} is {size} {'above' if test.mean > 0 else 'below'} {baseline}, {over}, {chance}"
    else:
        sentence = f"No difference between {row} and {baseline} can be shown with {over} ({amount}, {chance})"
    sentence += _although(differs)
    if test.deviation is None:
        sentence += "; it is one of these two networks, and says nothing of other seeds"
    elif test.n <= FEW_SEEDS:
        sentence += f"; {test.n} seeds are too few to rely on"
    if target is not None and test.deviation is not None and p_holm > LEVEL:
        sentence += f"; {_advice(needed, test.n, metric, target)}"
    return Difference(
        *pair, metric, test.mean, test.low, test.high, test.p, p_holm, test.effect, test.effect_name, test.name, test.n,
        needed, f"{sentence}.", None,
    )  # fmt: skip


def _advice(needed: int | None, n: int, metric: str, target: float) -> str:
    size = _amount(metric, target, None).removeprefix("+")
    if needed is None:
        return f"more than {paired.MAX_SEEDS:,} would be needed to show {size}"
    return f"{needed} would show {size}" if needed > n else f"{size} would probably have been shown"


def _although(differs: list[str]) -> str:
    return f", although they differ in {', '.join(differs)}" if differs else ""


def _amount(metric: str, value: float, ends: tuple[float, float] | None) -> str:
    """Formats "1.2 ± 0.4 points", or "0.012 ± 0.004" of what is no accuracy."""
    scale = 100 if is_accuracy(metric) else 1
    half = scale * (ends[1] - ends[0]) / 2 if ends else scale * abs(value)
    decimals = max(1, -math.floor(math.log10(half))) if half else 1
    text = with_interval(scale * value, None if ends is None else (scale * ends[0], scale * ends[1]), min(decimals, 6))
    return f"{text} points" if is_accuracy(metric) else text


def _p(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}" if p < 0.1 else f"p = {p:.2f}"
