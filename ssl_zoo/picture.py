"""The picture of a run: what it learned in bars, beside a map of its features."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from ssl_zoo.evaluators.few_labels import Row, summary

MAX_POINTS = 2000  # of the map: beyond it neighbour embedding takes minutes, and dots cover each other


def draw(
    metrics: Mapping[str, float],
    method: str,
    features: Tensor,
    labels: Tensor,
    class_names: Sequence[str],
    path: Path,
) -> None:
    """Writes a PNG: the few-label table as bars, and the features (N, D), labelled (N,), laid out in the plane by t-SNE.

    Without few-label metrics it is the map alone. Colours tell up to 20 classes apart, more are not named.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns, rows = summary(metrics, method)
    figure = Figure(figsize=(14 if rows else 7, 6), layout="constrained", dpi=120)
    FigureCanvasAgg(figure)  # draws without a display, and without touching the user's own matplotlib settings
    axes = figure.subplots(1, 2 if rows else 1, squeeze=False)[0]
    if rows:
        _bars(axes[0], columns, rows)
    _map(axes[-1], features, labels, class_names)
    axes[-1].set_title(f"test features of {method}, t-SNE")
    figure.savefig(path)


def _bars(axes, columns: list[str], rows: list[Row]) -> None:  # type: ignore[no-untyped-def]
    thickness = 0.85 / len(rows)
    for place, row in enumerate(rows):
        known = [(position, *cell) for position, cell in enumerate(row.cells) if cell]
        x = [position + (place - (len(rows) - 1) / 2) * thickness for position, _, _ in known]
        heights = [100 * mean for _, mean, _ in known]
        errors = [100 * (deviation or 0) for _, _, deviation in known]
        colour = "0.75" if place < len(rows) - 2 else None
        axes.bar(x, heights, thickness, yerr=errors, label=row.name, capsize=2)
        for left, height, error in zip(x, heights, errors, strict=True):
            axes.text(left, height + error + 0.7, f"{height:.0f}", ha="center", fontsize=8)
    axes.set_xticks(range(len(columns)), columns)
    axes.set_ylim(0, 118)
    axes.set_yticks(range(0, 101, 20))
    axes.set_ylabel("test accuracy, %")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(ncols=3, loc="upper left", frameon=False, fontsize=8)
    axes.set_title("few labels: mean and standard deviation over draws of the labels")
