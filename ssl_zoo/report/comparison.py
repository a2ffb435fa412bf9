"""Groups runs into rows: means over seeds, intervals, baselines before training, and notes on comparability.

Runs that differ only in their seed form one row, with the mean over the seeds and its 95 % interval by Student's t.
Next to each metric is its value before training, measured by the same runs before their first step. The notes list
where the rows differ: budgets, devices, precision.
"""

import math
import re
import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ssl_zoo.evaluators.correlation import fisher
from ssl_zoo.evaluators.proportion import wilson

NAME_COLUMNS = ("data", "method", "backbone", "experiment", "budget")
COSTS = ("seconds", "examples/s")
ENVIRONMENT = ("device", "precision", "torch")
# Keys that do not affect what is learned. The budget is one of NAME_COLUMNS.
_WATCHING = ("trainer.checkpoint_every", "trainer.evaluate_every", "trainer.log_every_n_steps")
_NOT_SETTINGS = ("seed", "name", "budget", "logger", *_WATCHING)


def is_accuracy(key: str) -> bool:
    """Whether a metric is an accuracy, a fraction that is shown in percent."""
    return bool(re.fullmatch(r"top[15]|recall\d+", key.rpartition("/")[2]))


def is_correlation(key: str) -> bool:
    """Whether a metric is a rank correlation, a number in [-1, 1]."""
    return key.rpartition("/")[2] == "spearman"


def is_better_low(key: str) -> bool:
    """Whether a lower value of a metric is better."""
    return key.rpartition("/")[2] in ("perplexity", "loss")


@dataclass(frozen=True)
class Estimate:
    """Mean and 95 % interval of a quantity measured once per run.

    Attributes:
        values: one value per run.
        examples: number of test examples of an accuracy, None if unknown or not the same in all runs.
    """

    values: tuple[float, ...]
    examples: int | None = None

    @property
    def mean(self) -> float:
        """Mean over the runs."""
        return statistics.fmean(self.values)

    @property
    def half_width(self) -> float | None:
        """Half the width of the 95 % interval of the mean by Student's t; None for one run."""
        n = len(self.values)
        if n < 2:
            return None
        from scipy.special import stdtrit

        return float(stdtrit(n - 1, 0.975)) * statistics.stdev(self.values) / math.sqrt(n)

    def interval(self, is_share: bool) -> tuple[float, float] | None:
        """Returns the bounds of the 95 % interval: by Student's t over the runs, clipped to [0, 1] for a share.

        For a single run, the binomial interval of an accuracy over its test examples; None if neither is available.
        """
        if self.half_width is None:
            return wilson(self.mean, self.examples) if is_share and self.examples and 0 <= self.mean <= 1 else None
        low, high = self.mean - self.half_width, self.mean + self.half_width
        return (max(low, 0.0), min(high, 1.0)) if is_share else (low, high)


@dataclass(frozen=True)
class ComparisonRow:
    """The runs that differ only in their seed.

    Attributes:
        names: values of `NAME_COLUMNS`, and "settings": other differences from rows of the same names.
        seeds: one per run.
        estimates: metrics and `COSTS`.
        environment: the values of each key of `ENVIRONMENT`.
    """

    names: dict[str, str]
    seeds: tuple[int | None, ...]
    estimates: dict[str, Estimate]
    environment: dict[str, set[str]]
    runs: tuple[dict[str, Any], ...] = ()

    def cell(self, key: str) -> str:
        """Formats a cell such as "87.1 ± 0.4"; empty if no run has the key, with its own n if only some have it.

        "98.1 (93.3 to 100.0)" if the interval is clipped at 0 or 100 % or is the binomial one of a single run.
        """
        if key not in self.estimates:
            return ""
        estimate = self.estimates[key]
        mean, half = estimate.mean, None if key in COSTS else estimate.half_width
        if key in COSTS:
            text = f"{mean:,.0f}"
        elif is_accuracy(key):
            text, ends = f"{100 * mean:.1f}", estimate.interval(is_share=True)
            if half is not None and half <= min(mean, 1 - mean):
                text += f" ± {100 * half:.1f}"
            elif ends is not None:
                text += f" ({100 * ends[0]:.1f} to {100 * ends[1]:.1f})"
        elif is_correlation(key) and half is None and estimate.examples and abs(mean) <= 1:
            low, high = fisher(mean, estimate.examples)
            text = f"{mean:.3f} ({low:.3f} to {high:.3f})"
        elif half:  # two significant digits of the interval
            decimals = max(0, 1 - math.floor(math.log10(half)))
            text = f"{mean:.{decimals}f} ± {half:.{decimals}f}"
        else:
            text = f"{mean:.4g}"
        return text if len(estimate.values) == len(self.seeds) else f"{text} (n={len(estimate.values)})"


@dataclass(frozen=True)
class Comparison:
    """A comparison of runs.

    Attributes:
        rows: completed runs by row, best first within a data set.
        incomplete: results of the other runs, each with its "folder".
    """

    rows: list[ComparisonRow]
    incomplete: list[dict[str, Any]]
    baseline: ComparisonRow | None = None

    @property
    def verdicts(self) -> list[str]:
        """Sentences on the differences to the baseline."""
        return [] if self.baseline is None else [f"{self.baseline.names['method']} is the baseline."]

    @property
    def metrics(self) -> list[str]:
        """All metrics of trained networks, accuracies first."""
        found = {key for row in self.rows for key in row.estimates if not key.startswith("init/")} - {*COSTS}
        return sorted(found, key=lambda key: (not is_accuracy(key), key))

    @property
    def headlines(self) -> list[str]:
        """The metrics of the short table."""
        shown = [key for key in self.metrics if is_accuracy(key) or is_correlation(key) or key.endswith("/perplexity")]
        return shown or self.metrics

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
            lines.append("± is the 95 % interval of the mean (Student's t) over n runs of different seeds.")
        if any(len(row.seeds) == 1 for row in self.rows):
            lines.append("n = 1 has no interval over seeds: one seed does not tell a difference from chance.")
        lines += self._examples()
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
    """Groups the results that `load_runs` returns by everything except the seed."""
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
    comparison = Comparison(rows, [run for run in runs if run["status"] != "completed"])
    if comparison.headlines:
        first = comparison.headlines[0]
        rows.sort(key=lambda row: (row.names["data"], _rank(row, first)))
    if baseline is not None:
        named = [row for row in rows if row.names["method"] == baseline]
        if not named:
            raise ValueError(f"baseline={baseline}: no row is called so")
        comparison = Comparison(rows, comparison.incomplete, named[0])
    return comparison


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
        costs = {"seconds": run["budget"].get("seconds"), "examples/s": run["speed"].get("examples_per_second")}
        for key, value in (run["metrics"] | costs).items():
            if value is not None:
                measured[key].append(value)
                examples[key].add(run.get("counts", {}).get(key))
    environment = {fact: {str(run["environment"].get(fact, "unknown")) for run in runs} for fact in ENVIRONMENT}
    alike = {key: counts.pop() if len(counts) == 1 else None for key, counts in examples.items()}
    estimates = {key: Estimate(tuple(values), alike[key]) for key, values in measured.items()}
    return ComparisonRow(names, tuple(run["seed"] for run in runs), estimates, environment, tuple(runs))


def _settings(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns the settings that affect what is learned, as a flat mapping with dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        name = f"{prefix}{key}"
        if name not in _NOT_SETTINGS and key != "seed":
            flat |= _settings(value, f"{name}.") if isinstance(value, dict) else {name: value}
    return flat
