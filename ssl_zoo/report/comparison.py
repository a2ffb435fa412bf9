"""Groups runs into rows: means over seeds, intervals, baselines before training, differences, notes on comparability.

Runs that differ only in their seed form one row, with the mean over the seeds and its 95 % interval by Student's t.
Next to each metric is its value before training, measured by the same runs before their first step. Each row is
compared with a baseline, paired by seed. The notes list where the rows differ: budgets, devices, precision.
"""

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from ssl_zoo.evaluators.proportion import wilson
from ssl_zoo.report.classes import ByClass, accuracies_by_class
from ssl_zoo.report.comparable import differing_conditions, flat
from ssl_zoo.report.difference import Difference, describe_tests, find_differences
from ssl_zoo.report.estimate import Estimate, is_accuracy, is_better_low, is_correlation
from ssl_zoo.report.representations import Representations, compare_representations
from ssl_zoo.report.row import COMPUTE, COSTS, ENVIRONMENT, NAME_COLUMNS, ComparisonRow

DECISIVE = ("linear/top1", "knn/top1")
"""Accuracies by which rows are ordered and compared: the first that all rows have, else the one that most have."""
DETAILS = re.compile(r"robustness/(?!mean/)|knn_spaces/|transfer_knn/(?!mean/)|token_probe/\w+/from_token/")
"""Metrics of which there are many, and one that sums them up: the short table leaves them out."""
WITHOUT_LABELS = (
    "No accuracy to choose by. Scores without labels are not reliable across methods: of our own runs the one with the "
    "highest RankMe is no better than one at random (rank correlation with the linear probe +0.79 for ResNets, -0.17 "
    "for ViTs, +0.17 for text). Look at the neighbours.png of each run, or make a map of it: python run.py task=map "
    "encoder=<run folder>"
)
"""The verdict for data without labels; `benchmarks/label_free.py` prints the correlations."""
# Keys that do not affect what is learned. The budget is one of NAME_COLUMNS.
_WATCHING = (
    "trainer.checkpoint_every", "trainer.evaluate_every", "trainer.log_every_n_steps", "trainer.on_collapse",
)  # fmt: skip
_NOT_SETTINGS = ("seed", "name", "budget", "logger", *_WATCHING)


@dataclass(frozen=True)
class Comparison:
    """A comparison of runs.

    Attributes:
        rows: completed runs by row, best first within a data set.
        incomplete: results of the other runs, each with its "folder".
        named: rows that were named as the baseline: one, or one per data set, backbone, experiment and budget.
        across: whether rows that differ in data, evaluation, views or budget are compared all the same.
    """

    rows: list[ComparisonRow]
    incomplete: list[dict[str, Any]]
    named: list[ComparisonRow] = field(default_factory=list)
    across: bool = False

    @property
    def metrics(self) -> list[str]:
        """All metrics of trained networks, accuracies first."""
        found = {key for row in self.rows for key in row.estimates if not key.startswith("init/")} - {*COSTS, *COMPUTE}
        return sorted(found, key=lambda key: (not is_accuracy(key), key))

    @property
    def headline(self) -> str | None:
        """The first of the `headlines`, None if nothing was measured."""
        return next(iter(self.headlines), None)

    @property
    def headlines(self) -> list[str]:
        """The metrics of the short table; the first is that by which rows are ordered and compared."""
        kinds = (is_accuracy, is_correlation, lambda key: key.endswith("/perplexity"))
        shown = [key for key in self.metrics if any(kind(key) for kind in kinds) and not DETAILS.match(key)]
        shown = shown or self.metrics
        having = {key: sum(key in row.estimates for row in self.rows) for key in shown}
        decisive = next((key for key in DECISIVE if having.get(key) == len(self.rows)), None)
        return sorted(shown, key=lambda key: (key != decisive, -having[key]))

    @property
    def baseline(self) -> ComparisonRow | None:
        """The row that others are compared with: the first of those named, or else the best; None for a single row."""
        return next(iter(self.named or self.rows), None) if len(self.rows) > 1 else None

    def badge(self, row: ComparisonRow) -> str:
        """What marks a row in tables: "baseline", "best", or nothing."""
        is_baseline = any(row is one for one in self.named) or row is self.baseline
        return ("baseline" if self.named else "best") if is_baseline else ""

    def label(self, row: ComparisonRow) -> str:
        """A row's method, followed by what else tells it from the others, such as "simclr (vit_tiny, 40 epochs)"."""
        others = [row.names[name] for name in self.varying if name != "method" and row.names[name]]
        return row.names["method"] + (f" ({', '.join(others)})" if others else "")

    def differences(self, metric: str) -> list[Difference]:
        """Each row less its baseline, in the order of the rows.

        Without a named baseline it is the best row by `headline` of those that are comparable; so that this choice does
        not count as a finding, p is corrected for all pairs of rows then.
        """
        if metric not in self._differences:
            rows = [row for row in self.rows if metric in row.estimates]
            pairs = [(row, other) for row in rows if (other := self._baseline_of(row, rows, metric)) is not None]
            family = [] if self.named else rows
            self._differences[metric] = find_differences(pairs, metric, self.across, family, self.label)
        return self._differences[metric]

    @cached_property
    def _differences(self) -> dict[str, list[Difference]]:
        """Those that have been computed, by metric."""
        return {}

    def _baseline_of(self, row: ComparisonRow, rows: list[ComparisonRow], metric: str) -> ComparisonRow | None:
        """What to compare a row with: None for a baseline; the nearest one where none is comparable."""
        if any(row is one for one in self.named):
            return None
        before = self.named or rows[: next(place for place, one in enumerate(rows) if one is row)]
        candidates = [one for one in before if any(one is known for known in rows)]
        if not self.across:
            comparable = [one for one in candidates if not differing_conditions(row.runs, one.runs, metric)]
            candidates = comparable or candidates
        columns = [name for name in NAME_COLUMNS if name != "method"] if self.named else []
        shared = [sum(row.names[name] == one.names[name] for name in columns) for one in candidates]
        return candidates[shared.index(max(shared))] if candidates else None

    @cached_property
    def verdicts(self) -> list[str]:
        """Sentences by the first headline metric: which row has the highest value, and what each difference says."""
        metric, baseline = self.headline, self.baseline
        if metric is None or baseline is None:
            return []
        if not is_accuracy(metric) and not is_correlation(metric):
            return [WITHOUT_LABELS] if len({row.names["method"] for row in self.rows}) > 1 else []
        lines = [found.sentence for found in self.differences(metric)]
        if metric in baseline.estimates and (self.named or "data" not in self.varying):
            about = f"{metric}, {baseline.cell(metric)}{' %' * is_accuracy(metric)}"
            lines.insert(
                0, f"{self.label(baseline)} {'is the baseline:' if self.named else 'has the highest'} {about}."
            )
        return lines

    @cached_property
    def classes(self) -> tuple[list[ByClass], list[str]]:
        """Accuracies by class of the first headline accuracy whose examples' labels were kept, and notes on them."""
        notes: list[str] = []
        for metric in filter(is_accuracy, self.headlines):
            rows = [row for row in self.rows if metric in row.estimates]
            tables, missing = accuracies_by_class(metric, rows, self.differences(metric), not self.named, self.label)
            if tables:
                return tables, missing
            notes = notes or missing
        return [], notes

    @cached_property
    def representations(self) -> Representations | None:
        """How alike the representations of the rows are, and maps of them; None if no features were kept."""
        return compare_representations(self.rows, self.label)

    @property
    def varying(self) -> list[str]:
        """The columns in which rows differ, and always the method."""
        names = [name for name in (*NAME_COLUMNS, "settings") if len({row.names[name] for row in self.rows}) > 1]
        return names if "method" in names else ["method", *names]

    @property
    def notes(self) -> list[str]:
        """Notes needed to interpret the rows."""
        if not self.rows:
            return ["No run completed."]
        same = [name for name in NAME_COLUMNS if name not in self.varying and self.rows[0].names[name]]
        lines = (
            [f"Alike in all rows: {', '.join(f'{name} {self.rows[0].names[name]}' for name in same)}."] if same else []
        )
        lines.append("Test metrics are of the last epoch. init/ is the same measurement before training.")
        if any(len(row.seeds) > 1 for row in self.rows):
            lines.append(
                "± or the range in brackets is the 95 % interval of the mean (Student's t) over n runs of different "
                "seeds; of accuracies on the logit scale, which ends at 0 and 100 %."
            )
        if any(len(row.seeds) == 2 for row in self.rows):
            lines.append(
                "n = 2 is too few: the interval reaches 12.7 standard errors to each side; of 3 seeds 4.3, of 5 2.8."
            )
        if any(len(row.seeds) == 1 for row in self.rows):
            lines.append("n = 1 has no interval over seeds: one seed does not tell a difference from chance.")
        lines += self._examples()
        if self.headline is not None:
            lines += describe_tests(self.differences(self.headline), chosen=not self.named)
        lines += self._flops()
        if "budget" in self.varying:
            lines.append("Budgets differ: the rows are not at equal compute.")
        for fact in ENVIRONMENT:
            values = sorted(set[str]().union(*(row.environment[fact] for row in self.rows)))
            if len(values) > 1:
                lines.append(f"The runs differ in {fact}: {', '.join(values)}.")
        for row in self.rows:
            if twice := sorted({seed for seed in row.seeds if seed is not None and row.seeds.count(seed) > 1}):
                seeds = ", ".join(map(str, twice))
                lines.append(f"{row.names['method']}: seed {seeds} counts more than once, so its ± is too small.")
        return lines

    def _examples(self) -> list[str]:
        """Returns notes on the number of test examples and the uncertainty that follows from it."""
        widest: dict[int, float] = {}
        keys: dict[int, list[str]] = {}
        for key in self.metrics:
            for estimate in (row.estimates[key] for row in self.rows if key in row.estimates):
                if is_accuracy(key) and (n := estimate.examples) and 0 <= estimate.mean <= 1:
                    low, high = wilson(estimate.mean, n)
                    widest[n] = max(widest.get(n, 0.0), (high - low) / 2)
                    keys[n] = list(dict.fromkeys([*keys.get(n, []), key]))
        return [
            f"{', '.join(keys[n])}: of {n:,} test examples, whose choice alone moves an accuracy by up to "
            f"± {100 * widest[n]:.1f} points (Wilson's binomial 95 % interval, in brackets where n = 1)."
            for n in sorted(widest)
        ]

    def _flops(self) -> list[str]:
        """Returns a note if the training FLOPs of the rows differ by more than a tenth."""
        flops = [(row.estimates["flops"].mean, self.label(row)) for row in self.rows if "flops" in row.estimates]
        (least, cheap), (most, dear) = (choose(flops, default=(0.0, "")) for choose in (min, max))
        if not 0 < 1.1 * least < most:
            return []
        factor = f"by a factor of up to {most / least:.1f}"
        return [f"Training FLOPs differ {factor}: {least:.2g} ({cheap}), {most:.2g} ({dear})."]

    def table(self, metrics: Sequence[str]) -> list[list[str]]:
        """Returns a header and one line per row: names, each metric and its value before training, n, costs."""
        keys, costs = self.with_baselines(metrics), self.present(COSTS)
        lines = [[*self.varying, *(f"{key} %" if is_accuracy(key) else key for key in keys), "n", *costs]]
        for row in self.rows:
            names, cells = [row.names[name] for name in self.varying], [row.cell(key) for key in keys]
            lines.append([*names, *cells, str(len(row.seeds)), *(row.cell(key) for key in costs)])
        return lines

    def incomplete_table(self) -> list[list[str]]:
        """Returns a header and one line per run that did not complete."""
        head = ["data", "method", "seed", "status"]
        lines = [[*head, "error", "folder"]]
        for run in self.incomplete:
            error = run.get("error", {"type": "", "message": ""})
            message = error["message"] if error["type"] in error["message"] else f"{error['type']}: {error['message']}"
            known = ["" if run[key] is None else str(run[key]) for key in head]
            lines.append([*known, " ".join(message.split()), str(run["folder"])])
        return lines

    def with_baselines(self, metrics: Sequence[str]) -> list[str]:
        """Returns those of `metrics` that were measured, each followed by its value before training."""
        return self.present(key for metric in metrics for key in (metric, f"init/{metric}"))

    def present(self, keys: Iterable[str]) -> list[str]:
        """Returns those of `keys` that any row has."""
        return [key for key in keys if any(key in row.estimates for row in self.rows)]


def compare(runs: Sequence[dict[str, Any]], baseline: str | None = None, across: bool = False) -> Comparison:
    """Groups the results that `load_runs` returns by everything except the seed.

    Args:
        runs: results, each with its "folder".
        baseline: the method, the settings or the label (see `Comparison.label`) of the row that the others are compared
            with; where rows of several data sets, backbones, experiments or budgets are called so, each is compared
            with its own. None: the best row, to see whether it really is better.
        across: compare rows, too, that differ in data, evaluation, views or budget.

    Raises:
        ValueError: for a baseline that is no row, or several with different settings.
    """
    groups: dict[tuple[str, ...], dict[str, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for run in runs:
        if run["status"] == "completed":
            budget = f"{run['budget']['value']:g} {run['budget']['kind']}"
            names = (*(run[name] or "" for name in NAME_COLUMNS[:-1]), budget)
            groups[names][repr(sorted(_settings(run["config"]).items()))].append(run)
    rows = []
    for names, alike in groups.items():
        labels = _labels([group[0] for group in alike.values()])
        for label, group in zip(labels, alike.values(), strict=True):
            rows.append(_row({**dict(zip(NAME_COLUMNS, names, strict=True)), "settings": label}, group))
    incomplete = [run for run in runs if run["status"] != "completed"]
    if headline := Comparison(rows, incomplete).headline:
        rows.sort(key=lambda row: (row.names["data"], _rank(row, headline)))
    found = Comparison(rows, incomplete, across=across)
    return found if baseline is None else Comparison(rows, incomplete, _named(found, baseline), across)


def _named(comparison: Comparison, baseline: str) -> list[ComparisonRow]:
    called = {id(row): (comparison.label(row), row.names["settings"], row.names["method"]) for row in comparison.rows}
    for place in range(3):  # the most specific name first
        if named := [row for row in comparison.rows if called[id(row)][place] == baseline]:
            break
    else:
        known = ", ".join(comparison.label(row) for row in comparison.rows) or "no completed run"
        raise ValueError(f"baseline={baseline}: no row is called so. There are: {known}")
    places = [tuple(row.names[name] for name in NAME_COLUMNS) for row in named]
    if len(set(places)) < len(places):
        labels = ", ".join(comparison.label(row) for row in named)
        raise ValueError(f"baseline={baseline}: several rows are called so. Give one of: {labels}")
    return named


def _labels(runs: Sequence[dict[str, Any]]) -> list[str]:
    """Returns a label per run of the same names: the overrides in which they differ, or else the settings."""
    overrides = [[text for text in run.get("overrides", ()) if not text.startswith("seed=")] for run in runs]
    shared = set.intersection(*map(set, overrides))
    labels = [" ".join(text for text in given if text not in shared) for given in overrides]
    if len(set(labels)) == len(labels):
        return labels
    settings = [_settings(run["config"]) for run in runs]
    differing = [key for key in sorted(set().union(*settings)) if len({repr(each.get(key)) for each in settings}) > 1]
    return [" ".join(f"{key}={each.get(key)}" for key in differing) for each in settings]


def _rank(row: ComparisonRow, key: str) -> float:
    if key not in row.estimates:
        return math.inf
    return row.estimates[key].mean * (1 if is_better_low(key) else -1)


def _row(names: dict[str, str], runs: Sequence[dict[str, Any]]) -> ComparisonRow:
    measured: dict[str, list[float]] = defaultdict(list)
    examples: dict[str, set[int | None]] = defaultdict(set)
    for run in runs:
        costs = {key: run["budget"].get(key) for key in COMPUTE}
        costs["examples/s"] = run["speed"].get("examples_per_second")
        for key, value in (run["metrics"] | costs).items():
            if value is not None:
                measured[key].append(value)
                examples[key].add(run.get("counts", {}).get(key))
    environment = {fact: {str(run["environment"].get(fact, "unknown")) for run in runs} for fact in ENVIRONMENT}
    alike = {key: counts.pop() if len(counts) == 1 else None for key, counts in examples.items()}
    estimates = {key: Estimate(tuple(values), alike[key]) for key, values in measured.items()}
    return ComparisonRow(names, tuple(run["seed"] for run in runs), estimates, environment, tuple(runs))


def _settings(config: dict[str, Any]) -> dict[str, Any]:
    """Returns the settings that affect what is learned, as a flat mapping with dotted keys."""
    ignored = tuple(f"{name}." for name in _NOT_SETTINGS)
    return {
        key: value
        for key, value in flat(config).items()
        if not f"{key}.".startswith(ignored) and "seed" not in key.split(".")
    }
