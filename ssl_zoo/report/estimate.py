"""Kinds of metrics, and the mean of one over runs with its 95 % interval.

Intervals of accuracies and recalls are computed on the logit scale, so that they end before 0 and 100 %.
`benchmarks/coverage.py` measures how often they hold the true mean.
"""

import math
import re
import statistics
from dataclasses import dataclass

from ssl_zoo.evaluators.proportion import wilson


def is_accuracy(key: str) -> bool:
    """Whether a metric is an accuracy, a fraction that is shown in percent."""
    return bool(re.fullmatch(r"top[15]|recall\d+|miou|accuracy", key.rpartition("/")[2]))


def is_correlation(key: str) -> bool:
    """Whether a metric is a rank correlation, a number in [-1, 1]."""
    return key.rpartition("/")[2] == "spearman"


def is_better_low(key: str) -> bool:
    """Whether a lower value of a metric is better."""
    return key.rpartition("/")[2] in ("perplexity", "loss", "error", "alignment", "uniformity")


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
        """Half the width of the 95 % interval of the mean by Student's t, on the scale of the values; None for one."""
        n = len(self.values)
        if n < 2:
            return None
        from scipy.special import stdtrit  # late, as scipy is slow to import

        return float(stdtrit(n - 1, 0.975)) * statistics.stdev(self.values) / math.sqrt(n)

    def interval(self, is_share: bool) -> tuple[float, float] | None:
        """The bounds of the 95 % interval of the mean; None if there is none.

        By Student's t over the runs. For a share on the logit scale, with the standard error of the mean m by the delta
        method: logit(m) +- t s / (sqrt(n) m (1 - m)), as for proportions in surveys. It is the plain interval where
        that is narrow, never reaches 0 or 1, and always holds m, which that of the mean of the logits need not.

        For the share of one run, or of runs whose values are all equal, so that their spread is not known: the binomial
        interval over its test examples.
        """
        half, mean = self.half_width, self.mean
        if not is_share or not 0 <= mean <= 1:
            return None if half is None else (mean - half, mean + half)
        if not half or mean in (0, 1):
            known = wilson(mean, self.examples) if self.examples else (mean, mean)
            return None if half is None and not self.examples else known
        from scipy.special import expit, logit

        half /= mean * (1 - mean)
        return float(expit(logit(mean) - half)), float(expit(logit(mean) + half))


def with_interval(mean: float, ends: tuple[float, float] | None, decimals: int) -> str:
    """Formats "81.0 ± 2.5", or "98.1 (93.3 to 99.5)" where the interval is not as wide on both sides."""
    if ends is None:
        return f"{mean:.{decimals}f}"
    low, high = ends
    below, above = f"{mean - low:.{decimals}f}", f"{high - mean:.{decimals}f}"
    if below == above:
        return f"{mean:.{decimals}f} ± {below}"
    return f"{mean:.{decimals}f} ({low:.{decimals}f} to {high:.{decimals}f})"
