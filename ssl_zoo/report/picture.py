"""The figure of a run: few-label accuracies as bars next to a t-SNE plot of the features."""

import io
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from ssl_zoo.evaluators.few_labels import FewLabelsRow, summarize
from ssl_zoo.report import display

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = {"raw pixels": "0.6", "before training": "tab:olive", "trained from scratch": "tab:orange"}


def place_features(features: np.ndarray) -> np.ndarray:
    """Places features (N, D) in two dimensions (N, 2) by t-SNE; of more than some 1,000 that takes long."""
    from sklearn.manifold import TSNE

    perplexity = min(30, (len(features) - 1) / 3)
    places: np.ndarray = TSNE(metric="cosine", perplexity=perplexity, random_state=0, init="random").fit_transform(
        features
    )
    return places


def plot_run_picture(
    metrics: Mapping[str, float],
    method: str,
    places: np.ndarray,
    labels: Tensor,
    class_names: Sequence[str],
) -> bytes:
    """Plots the few-label accuracies as bars and a map of the features.

    Without few-label metrics only the features are plotted. The legend is omitted for more than 20 classes.

    Args:
        metrics: metrics of the run.
        method: name of the method.
        places: of N test examples, see `place_features`, (N, 2).
        labels: their classes (N,), int64.
        class_names: names of the classes.

    Returns:
        The content of a PNG file.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns, rows = summarize(metrics, method)
    figure = Figure(figsize=(14 if rows else 7, 6), layout="constrained", dpi=120)
    FigureCanvasAgg(figure)  # needs no display and leaves matplotlib's global state alone
    axes = figure.subplots(1, 2 if rows else 1, squeeze=False)[0]
    if rows:
        _plot_few_labels(axes[0], columns, rows)
    _plot_map(axes[-1], places, labels, class_names)
    axes[-1].set_title(f"test features of {display.escape_figure_text(method)}, t-SNE")
    content = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # missing characters are shown as boxes
        figure.savefig(content, format="png")
    return content.getvalue()


def plot_confusion(matrices: Mapping[str, Tensor], class_names: Sequence[str]) -> bytes:
    """Plots confusion matrices beside each other, in per cent of each class.

    Args:
        matrices: (C, C) counts by title, rows are classes and columns predictions.
        class_names: of the C classes; written up to 40 of them.

    Returns:
        The content of a PNG file.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    count = len(class_names)
    side = min(max(3.0 + 0.3 * count, 4.5), 14)
    figure = Figure(figsize=(side * len(matrices), side), layout="constrained", dpi=120)
    FigureCanvasAgg(figure)
    names = [display.escape_figure_text(name) for name in class_names]
    for axes, (title, counts) in zip(
        figure.subplots(1, len(matrices), squeeze=False)[0], matrices.items(), strict=True
    ):
        shares = 100 * counts / counts.sum(1, keepdim=True).clamp(min=1)
        axes.imshow(shares.numpy(), cmap="Blues", vmin=0, vmax=100)
        axes.set(title=title, xlabel="predicted", ylabel="class, per cent")
        axes.set_xticks(range(count), names, rotation=90) if count <= 40 else axes.set_xticks([])
        axes.set_yticks(range(count), names) if count <= 40 else axes.set_yticks([])
        for row, column in counts.nonzero().tolist() if count <= 20 else ():
            share = shares[row, column].item()
            colour = "white" if share > 50 else "black"
            axes.text(column, row, f"{share:.0f}", ha="center", va="center", fontsize=8, color=colour)
    content = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(content, format="png")
    return content.getvalue()


def _plot_few_labels(axes: "Axes", columns: list[str], rows: list[FewLabelsRow]) -> None:
    thickness = 0.85 / len(rows)
    for place, row in enumerate(rows):
        known = [(position, *cell) for position, cell in enumerate(row.cells) if cell]
        x = [position + (place - (len(rows) - 1) / 2) * thickness for position, _, _ in known]
        heights = [100 * mean for _, mean, _ in known]
        errors = [100 * (deviation or 0) for _, _, deviation in known]
        # Error bars are clipped to [0, 100] %.
        ends = [min(height + error, 100.0) for height, error in zip(heights, errors, strict=True)]
        down = [min(height, error) for height, error in zip(heights, errors, strict=True)]
        up = [end - height for height, end in zip(heights, ends, strict=True)]
        colour = COLOURS.get(row.name.split(",")[0], "tab:blue")
        faint = 0.5 if row.name.endswith("kNN") else 1.0
        axes.bar(
            x,
            heights,
            thickness,
            yerr=[down, up],
            label=display.escape_figure_text(row.name),
            capsize=2,
            color=colour,
            alpha=faint,
        )
        for left, height, end in zip(x, heights, ends, strict=True):
            axes.text(left, end + 0.7, f"{height:.0f}", ha="center", fontsize=8)
    axes.set_xticks(range(len(columns)), columns)
    axes.set_ylim(0, 118)
    axes.set_yticks(range(0, 101, 20))
    axes.set_ylabel("test accuracy, %")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(ncols=3, loc="upper left", frameon=False, fontsize=8)
    axes.set_title("few labels: mean and standard deviation over samples of the labels")


def _plot_map(axes: "Axes", places: np.ndarray, labels: Tensor, class_names: Sequence[str]) -> None:
    from matplotlib import colormaps

    classes = labels.unique().tolist()
    palette = "tab10" if len(classes) <= 10 else "tab20" if len(classes) <= 20 else "gist_rainbow"
    colours = colormaps[palette].resampled(len(classes))
    for number, label in enumerate(classes):
        points = places[(labels == label).numpy()]
        name = display.escape_figure_text(class_names[label]) if 0 <= label < len(class_names) else None
        axes.scatter(points[:, 0], points[:, 1], s=10, color=colours(number), label=name, linewidths=0)
    if len(classes) <= 20 and class_names:
        axes.legend(markerscale=2, frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
