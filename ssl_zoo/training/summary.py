"""What a run logs and prints: its first line, its evaluations and the final table of metrics."""

import logging
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from logging.handlers import MemoryHandler
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Column, Table

from ssl_zoo import files
from ssl_zoo.data.base import DataModule
from ssl_zoo.evaluators import few_labels
from ssl_zoo.evaluators.base import EvalContext, Evaluator, Features, run_evaluators
from ssl_zoo.evaluators.correlation import Correlation
from ssl_zoo.evaluators.proportion import Proportion, is_greater
from ssl_zoo.method import Method
from ssl_zoo.report import picture
from ssl_zoo.report.display import warn_if_display_fails
from ssl_zoo.report.kept_features import evenly_spaced
from ssl_zoo.training.estimate import format_duration

log = logging.getLogger(__name__)

OTHER_EXAMPLES = ("retrieval/", "token_probe/", "transfer/")
"""Accuracies whose examples are not the labelled test split, so that its largest class says nothing of them."""


def first_line(
    choices: Mapping[str, str], data: DataModule, method: Method, flops: float, seconds: float, **rest: Any
) -> str:
    """Summarises the configuration and the cost of a run in one line.

    Args:
        choices: the chosen file of each config group.
        data: the data module.
        method: the method.
        flops: training FLOPs per example: forward and backward pass, all views.
        seconds: estimated training time.
        rest: further values, printed in their order.
    """
    facts = data.facts
    classes = f"{facts['num_classes']:,} classes" if facts["has_labels"] else "no labels"
    parameters = sum(parameter.numel() for parameter in method.encoder.parameters())
    backbone = (
        f"backbone {choices['backbone']} ({parameters / 1e6:.3g} M parameters, {flops / 1e9:.3g} GFLOP per example)"
    )
    parts = [
        f"{choices['method']} on {choices['data']} ({data.num_train:,} training examples, {classes})",
        f"views {choices['views']} ({len(data.views)} per example)",
        backbone,
        f"optimizer {choices['optimizer']}",
        *map(str, rest.values()),
        f"about {format_duration(seconds)} of training",
    ]
    return ", ".join(parts)


def evaluate_and_log(when: str, evaluators: Mapping[str, Evaluator], context: EvalContext) -> dict[str, float]:
    """Calls `run_evaluators` and logs one line with the evaluators and the time taken.

    What the evaluators log follows that line. A terminal shows the line without the time until then.
    """
    if not evaluators:
        return {}
    count = context.data.facts["num_test"]
    examples = f"{count:,} test examples" if count else "the training split"
    line, started = f"{when}: evaluating {', '.join(evaluators)} on {examples} ...", time.perf_counter()
    if sys.stdout.isatty() and log.isEnabledFor(logging.INFO):
        sys.stdout.write(f"{line}\r")  # the logged line replaces it
        sys.stdout.flush()
    with _held_back(logging.getLogger("ssl_zoo.evaluators")):
        try:
            return run_evaluators(evaluators, context)
        finally:
            log.info("%s %.1f s", line, time.perf_counter() - started)


@contextmanager
def _held_back(logger: logging.Logger) -> Iterator[None]:
    """Holds back what is logged by and below `logger` until the end."""
    memory = MemoryHandler(capacity=sys.maxsize, flushLevel=sys.maxsize)
    logger.addHandler(memory)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(memory)
        logger.propagate = True
        for record in memory.buffer:
            (logger.parent or logger).handle(record)


def example_counts(metrics: Mapping[str, float]) -> dict[str, int]:
    """Returns the number of test examples of each accuracy; for `mask/top1` of tokens, for correlations of pairs."""
    return {key: value.n for key, value in metrics.items() if isinstance(value, Proportion | Correlation)}


def format_metric(value: float | None) -> str:
    """Formats a metric: an accuracy in percent and a correlation with their intervals, others with four digits."""
    if value is None:
        return ""
    if isinstance(value, Correlation):
        return value.with_interval
    return value.percent if isinstance(value, Proportion) else f"{value:.4g}"


def nothing_learned(metrics: Mapping[str, float], majority: float | None) -> str | None:
    """Returns a warning if no accuracy shows that anything was learned, else None.

    An accuracy shows learning if it is significantly better than before training and than always predicting the most
    frequent class. Few-label accuracies are not considered.

    Args:
        metrics: metrics of the trained encoder, and of the encoder before training under `init/`.
        majority: fraction of the largest class in the test split, None if unknown; for masked tokens the metric
            `mask/majority_top1` is used instead.
    """
    compared = []
    for key, value in metrics.items():
        before = metrics.get(f"init/{key}")
        if key.startswith("few/") or key == "mask/majority_top1":
            continue
        if not isinstance(value, Proportion) or not isinstance(before, Proportion):
            continue
        floor = None if key.startswith(OTHER_EXAMPLES) else majority
        if key.startswith("mask/"):
            floor = metrics.get("mask/majority_top1")
        if is_greater(value, before) and (floor is None or value.interval[0] > floor):
            return None
        against = f"{100 * before:.1f} % before" + ("" if floor is None else f", {100 * floor:.1f} % always the same")
        compared.append(f"{key} {value.percent} ({against})")
    if not compared:
        return None
    return (
        "warning: nothing was learned that these evaluations show: no accuracy is better, by more than chance, than "
        f"before training and than always giving the most frequent answer: {'; '.join(compared)}"
    )


def show_metrics(
    folder: Path, name: str, metrics: Mapping[str, float], data: DataModule, features: Features | None
) -> np.ndarray | None:
    """Prints the metrics before and after training and writes the figure report.png.

    The run is complete at this point, so failures are only warnings, unless the disk refuses the file.

    Args:
        folder: the run folder.
        name: name of the method.
        metrics: as for `nothing_learned`.
        data: the data module.
        features: features of the test split, None if no evaluator needed them.

    Returns:
        The places (n, 2) in the figure of the examples that `evenly_spaced` chooses; None without a figure.
    """
    # The table of metrics, and below it the accuracies with few labels.
    few = [key for key in metrics if key.startswith("few/")]
    labelled = features is not None and bool((features.y >= 0).any())
    majority = features.y.bincount().max().item() / len(features.y) if features is not None and labelled else None
    with warn_if_display_fails("the table of metrics"):
        console = Console()
        title = "test metrics of the last epoch, with their 95 % intervals by n examples"
        keys = sorted(key for key in metrics if not key.startswith(("init/", "few/")))
        names = Column("metric", min_width=max(map(len, keys), default=0))  # values wrap where a terminal is narrow
        table = Table(names, "before training", "trained", "n", title=title, title_justify="left")
        for key in keys:
            value = metrics[key]
            count = f"{value.n:,}" if isinstance(value, Proportion | Correlation) else ""
            table.add_row(key, format_metric(metrics.get(f"init/{key}")), format_metric(value), count)
        if table.row_count:
            if majority is not None:
                table.add_row("majority class", "", f"{100 * majority:.1f} %", "")
            console.print(table)
        if few:
            console.print(few_labels.few_labels_table(metrics, name))
        if sentence := nothing_learned(metrics, majority):
            log.warning(sentence)
    # The figure, written only if it could be plotted.
    places = None
    if features is not None and labelled:
        figure, rows = b"", evenly_spaced(len(features.x))
        with warn_if_display_fails("the picture of the run"):
            found = picture.place_features(features.x[rows].numpy())
            figure = picture.plot_run_picture(metrics, name, found, features.y[rows], data.facts["class_names"])
            places = found
        if figure:
            files.write_atomically(folder / "report.png", figure)
            log.info("picture: %s", folder / "report.png")
    return places
