"""Which runs make one row, and what the rows say: means over seeds, intervals, baselines, and honest notes.

Runs that differ in nothing but their seed make one row, with the mean over the seeds and its 95 % interval by Student's
t. Beside each metric stands the same one before training, taken by the same runs before their first step. What the
rows do not have in common is said: budgets, devices, precision.
"""

import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ssl_zoo.evaluators.proportion import wilson

NAME_COLUMNS = ("data", "method", "backbone", "experiment", "budget")
COSTS = ("seconds", "examples/s")
ENVIRONMENT = ("device", "precision", "torch")
# Parts of the config that say how a run was named and watched, not what was learned; the budget stands in NAMES.
_WATCHING = ("trainer.checkpoint_every", "trainer.evaluate_every", "trainer.log_every_n_steps")
_NOT_SETTINGS = ("seed", "name", "budget", "logger", *_WATCHING)


def is_accuracy(key: str) -> bool:
    """Whether a metric is an accuracy, a fraction that is shown in percent."""
    return key.rpartition("/")[2] in ("top1", "top5")


def is_better_low(key: str) -> bool:
    """Whether a lower value of a metric is better."""
    return key.rpartition("/")[2] in ("perplexity", "loss")


@dataclass(frozen=True)
class Estimate:
    """What was measured, one value per run, as a mean with the half width of its 95 % interval (None for one value).

    examples: how many test examples an accuracy is of, None if unknown or not the same in all runs.
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
        """The ends of the 95 % interval: by Student's t over the runs, cut to [0, 1] where the mean cannot be outside.

        Of one run, the binomial interval of an accuracy by its test examples; None where there is neither.
        """
        if self.half_width is None:
            return wilson(self.mean, self.examples) if is_share and self.examples and 0 <= self.mean <= 1 else None
        low, high = self.mean - self.half_width, self.mean + self.half_width
        return (max(low, 0.0), min(high, 1.0)) if is_share else (low, high)


@dataclass(frozen=True)
class ComparisonRow:
    """The runs that differ in their seed only."""

    names: dict[str, str]  # NAMES and "settings": what else sets this row apart from those of the same names
    seeds: tuple[int | None, ...]
    estimates: dict[str, Estimate]  # metrics and COSTS
    environment: dict[str, set[str]]  # ENVIRONMENT

    def cell(self, key: str) -> str:
        """A cell such as "87.1 ± 0.4"; empty if no run has the key, with its own n if some runs have not.

        "98.1 (93.3 to 100.0)" where the interval ends at 0 or 100 %, or is the binomial one of a single run.
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
        elif half:  # as many decimals as two digits of the interval take
            decimals = max(0, 1 - math.floor(math.log10(half)))
            text = f"{mean:.{decimals}f} ± {half:.{decimals}f}"
        else:
            text = f"{mean:.4g}"
        return text if len(estimate.values) == len(self.seeds) else f"{text} (n={len(estimate.values)})"


@dataclass(frozen=True)
class Comparison:
    """Rows, best first within a data set, and the runs that did not complete: results, each with its "folder"."""

    rows: list[ComparisonRow]
    incomplete: list[dict[str, Any]]

    @property
    def metrics(self) -> list[str]:
        """All metrics of trained networks, accuracies first."""
        found = {key for row in self.rows for key in row.estimates if not key.startswith("init/")} - {*COSTS}
        return sorted(found, key=lambda key: (not is_accuracy(key), key))

    @property
    def headlines(self) -> list[str]:
        """The metrics of the short table."""
        return [key for key in self.metrics if is_accuracy(key) or key.endswith("/perplexity")] or self.metrics

    @property
    def varying(self) -> list[str]:
        """The names that tell the rows apart, the method always."""
        names = [name for name in (*NAME_COLUMNS, "settings") if len({row.names[name] for row in self.rows}) > 1]
        return names if "method" in names else ["method", *names]

    @property
    def notes(self) -> list[str]:
        """What a reader must know to read the rows rightly."""
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
        """How many test examples the accuracies are of, and how far that alone may move one."""
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
        """A header and a line per row, as text: names, each metric and its random-init baseline, n, costs."""
        keys, costs = self.with_baselines(metrics), self.present(COSTS)
        lines = [[*self.varying, *(f"{key} %" if is_accuracy(key) else key for key in keys), "n", *costs]]
        for row in self.rows:
            names, cells = [row.names[name] for name in self.varying], [row.cell(key) for key in keys]
            lines.append([*names, *cells, str(len(row.seeds)), *(row.cell(key) for key in costs)])
        return lines

    def incomplete_table(self) -> list[list[str]]:
        """A header and a line per run that did not complete, as text."""
        head = ["data", "method", "seed", "status"]
        lines = [[*head, "error", "folder"]]
        for run in self.incomplete:
            error = run.get("error", {"type": "", "message": ""})
            message = error["message"] if error["type"] in error["message"] else f"{error['type']}: {error['message']}"
            known = ["" if run[key] is None else str(run[key]) for key in head]
            lines.append([*known, " ".join(message.split()), str(run["folder"])])
        return lines

    def with_baselines(self, metrics: Sequence[str]) -> list[str]:
        """The measured ones among `metrics`, each followed by its value before training."""
        return self.present(key for metric in metrics for key in (metric, f"init/{metric}"))

    def present(self, keys: Iterable[str]) -> list[str]:
        """Those of `keys` that any row has."""
        return [key for key in keys if any(key in row.estimates for row in self.rows)]


def compare(runs: Sequence[dict[str, Any]]) -> Comparison:
    """Group what `load` returns by everything but the seed."""
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
    return comparison


def _labels(runs: Sequence[dict[str, Any]]) -> list[str]:
    """What sets apart `runs` of the same names: the overrides in which they differ, or else the settings."""
    said = [[text for text in run.get("overrides", ()) if not text.startswith("seed=")] for run in runs]
    shared = set.intersection(*map(set, said))
    labels = [" ".join(text for text in its if text not in shared) for its in said]
    if len(set(labels)) == len(labels):
        return labels
    settings = [_settings(run["config"]) for run in runs]
    telling = [key for key in sorted(set().union(*settings)) if len({repr(its.get(key)) for its in settings}) > 1]
    return [" ".join(f"{key}={its.get(key)}" for key in telling) for its in settings]


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
    return ComparisonRow(names, tuple(run["seed"] for run in runs), estimates, environment)


def _settings(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Further settings from the command line, in dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        name = f"{prefix}{key}"
        if name not in _NOT_SETTINGS and key != "seed":
            flat |= _settings(value, f"{name}.") if isinstance(value, dict) else {name: value}
    return flat
