"""Accuracy against the number of labels: a network that saw unlabelled pictures first, and one that did not."""

import logging
import math
import re
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from ssl_zoo.introduction.figure import BLUE, MUTED, ORANGE, as_png

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

log = logging.getLogger(__name__)


class Point(NamedTuple):
    """Mean test accuracy over draws of the labels.

    Attributes:
        labels: per class.
        mean: in [0, 1].
        low: lower end of the 95 % interval of the mean, `mean` where there was one draw.
        high: upper end.
    """

    labels: float
    mean: float
    low: float
    high: float


def interval_of_mean(mean: float, deviation: float, draws: int) -> tuple[float, float]:
    """The 95 % interval of the mean of `draws` shares by Student's t on the logit scale, within 0 and 1.

    logit(mean) +- t s / (sqrt(draws) mean (1 - mean)), the delta method.
    """
    if deviation == 0 or not 0 < mean < 1:
        return mean, mean
    from scipy.special import expit, logit, stdtrit

    half = float(stdtrit(draws - 1, 0.975)) * deviation / math.sqrt(draws) / (mean * (1 - mean))
    return float(expit(logit(mean) - half)), float(expit(logit(mean) + half))


def curve(metrics: Mapping[str, float], name: str, draws: int, all_labels: float) -> list[Point]:
    """The points of a row of the evaluator `few_labels`, by number of labels.

    Args:
        metrics: those of a run.
        name: linear, scratch, pixels_linear, ...
        draws: of the labels, for each number of labels but all.
        all_labels: how many labels per class are all of them.
    """
    found = (re.fullmatch(rf"few/(\d+)/{name}", key) for key in metrics)
    points = []
    for n in sorted(int(match[1]) for match in found if match):
        mean = metrics[f"few/{n}/{name}"]
        points.append(Point(n, mean, *interval_of_mean(mean, metrics[f"few/{n}/{name}_std"], draws)))
    last = metrics[f"few/all/{name}"]
    return [*points, Point(all_labels, last, last, last)]


def draw_labels(
    metrics: Mapping[str, float], draws: int, scratch_draws: int, num_train: int, num_classes: int
) -> bytes:
    """Three curves: the linear probe on the pre-trained encoder, the network from scratch, the probe on the pixels.

    Args:
        metrics: those of a run that was evaluated by `few_labels`.
        draws: of the labels for the probes.
        scratch_draws: of the labels for training from scratch.
        num_train: training examples.
        num_classes: classes.

    Returns:
        The content of a PNG file.
    """
    every = num_train / num_classes
    curves = {
        "after pictures without labels": (curve(metrics, "linear", draws, every), BLUE, "o-"),
        "the same network, labels alone": (curve(metrics, "scratch", scratch_draws, every), ORANGE, "^--"),
        "no network: the bare pixels": (curve(metrics, "pixels_linear", draws, every), MUTED, "s:"),
    }
    for name, (points, _, _) in curves.items():
        shown = ", ".join(
            f"{p.labels:.0f}: {100 * p.mean:.1f} ({100 * p.low:.1f} to {100 * p.high:.1f})" for p in points
        )
        log.info("%s; labels per class and accuracy in %%: %s", name, shown)
    return as_png(4.4, partial(_plot, curves=curves))


def _plot(figure: "Figure", curves: Mapping[str, tuple[list[Point], str, str]]) -> None:
    axes = figure.subplots()
    for number, (name, (points, colour, style)) in enumerate(curves.items()):
        beside = [point._replace(labels=point.labels * 1.05 ** (number - 1)) for point in points]  # else bars overlap
        plot_points(axes, beside, colour, style, name)
    mark_labels(axes, [point for points, _, _ in curves.values() for point in points])
    axes.legend(loc="lower right")


def plot_points(axes: "Axes", points: list[Point], colour: str, style: str, name: str) -> None:
    """Plots accuracies in per cent with their intervals against the number of labels."""
    below = [100 * (point.mean - point.low) for point in points]
    above = [100 * (point.high - point.mean) for point in points]
    heights = [100 * point.mean for point in points]
    x = [point.labels for point in points]
    axes.errorbar(x, heights, yerr=[below, above], fmt=style, color=colour, label=name, capsize=3, linewidth=2)


def mark_labels(axes: "Axes", points: list[Point]) -> None:
    """Puts the numbers of labels below a logarithmic axis, and per cent beside it, from the lowest ten."""
    *few, most = sorted({point.labels for point in points})
    axes.set_xscale("log")
    axes.set_xticks([*few, most], [*(f"{number:.0f}" for number in few), f"all\n({most:.0f})"])
    axes.set_xticks([], minor=True)
    lowest = 10 * math.floor(10 * min(point.low for point in points))
    axes.set(xlabel="labelled examples of each digit", ylabel="test pictures named rightly, %", ylim=(lowest, 101))
