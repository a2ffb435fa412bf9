"""A row of a comparison: the runs that differ only in their seed."""

import math
from dataclasses import dataclass
from typing import Any

from ssl_zoo.evaluators.correlation import fisher
from ssl_zoo.report.estimate import Estimate, is_accuracy, is_correlation, with_interval

NAME_COLUMNS = ("data", "method", "backbone", "experiment", "budget")
COSTS = ("seconds", "examples/s")
"""Costs that tables show."""
COMPUTE = ("flops", "seconds", "examples")
"""What a run has cost in training FLOPs, seconds and examples, to plot a metric against."""
ENVIRONMENT = ("device", "precision", "torch")


@dataclass(frozen=True)
class ComparisonRow:
    """The runs that differ only in their seed.

    Attributes:
        names: values of `NAME_COLUMNS`, and "settings": other differences from rows of the same names.
        seeds: one per run.
        estimates: metrics, `COSTS` and `COMPUTE`.
        environment: the values of each key of `ENVIRONMENT`.
        runs: their results, each with its "folder".
    """

    names: dict[str, str]
    seeds: tuple[int | None, ...]
    estimates: dict[str, Estimate]
    environment: dict[str, set[str]]
    runs: tuple[dict[str, Any], ...]

    def cell(self, key: str) -> str:
        """Formats a cell such as "87.1 ± 0.4"; empty if no run has the key, with its own n if only some have it.

        "98.1 (93.3 to 99.5)" if the interval is not as wide on both sides.
        """
        if key not in self.estimates:
            return ""
        estimate = self.estimates[key]
        mean, half = estimate.mean, None if key in (*COSTS, *COMPUTE) else estimate.half_width
        if key in (*COSTS, *COMPUTE):
            text = f"{mean:.3g}" if key == "flops" else f"{mean:,.0f}"
        elif is_accuracy(key):
            ends = estimate.interval(is_share=True)
            text = with_interval(100 * mean, None if ends is None else (100 * ends[0], 100 * ends[1]), decimals=1)
        elif is_correlation(key) and half is None and estimate.examples and abs(mean) <= 1:
            low, high = fisher(mean, estimate.examples)
            text = f"{mean:.3f} ({low:.3f} to {high:.3f})"
        elif half:  # two significant digits of the interval
            decimals = max(0, 1 - math.floor(math.log10(half)))
            text = f"{mean:.{decimals}f} ± {half:.{decimals}f}"
        else:
            text = f"{mean:.4g}"
        return text if len(estimate.values) == len(self.seeds) else f"{text} (n={len(estimate.values)})"
