"""Pictures in, names out: the answers of a network that learned from labels, and how few labels are too few."""

import logging
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

from torch import Tensor

from ssl_zoo.introduction.figure import GREEN, ORANGE, VERMILION, as_png, without_ticks
from ssl_zoo.introduction.labels import Point, curve, mark_labels, plot_points

if TYPE_CHECKING:
    from matplotlib.figure import Figure

log = logging.getLogger(__name__)

PER_ROW = 8


def chosen(predictions: Tensor, truth: Tensor) -> list[int]:
    """The first `PER_ROW` test pictures in their order, then as many of those that are named wrongly as a row holds."""
    return [*range(PER_ROW), *(predictions != truth).nonzero().flatten().tolist()[:PER_ROW]]


def draw_supervised(
    images: Tensor, predictions: Tensor, truth: Tensor, metrics: Mapping[str, float], draws: int, num_train: int
) -> bytes:
    """Test pictures with the network's answers, and below them the accuracy against the number of labels.

    Args:
        images: (N, H, W) test pictures in [0, 1].
        predictions: (N,) int64, the answers.
        truth: (N,) int64, the labels.
        metrics: those of the run, which was evaluated by `few_labels`.
        draws: of the labels for training from scratch.
        num_train: labelled training examples.

    Returns:
        The content of a PNG file.
    """
    wrong = int((predictions != truth).sum())
    points = curve(metrics, "scratch", draws, num_train / len(truth.unique()))
    log.info("%d labels: %d of %d test pictures are named wrongly", num_train, wrong, len(truth))
    for point in points:
        log.info("%.0f labels of each digit: %.1f %% right", point.labels, 100 * point.mean)
    title = f"{num_train:,} labels: {len(truth) - wrong} of {len(truth)} new pictures named rightly"
    pictures = [(images[i], int(predictions[i]), int(truth[i])) for i in chosen(predictions, truth)]
    return as_png(5.4, partial(_plot, title=title, pictures=pictures, points=points))


def _plot(figure: "Figure", title: str, pictures: list[tuple[Tensor, int, int]], points: list[Point]) -> None:
    above, below = figure.subfigures(2, 1, height_ratios=(1, 1.4), squeeze=False)[:, 0]
    above.suptitle(title, fontsize=10)
    grid = above.subplots(2, PER_ROW).ravel()
    for axes in grid[len(pictures) :]:
        axes.set_visible(False)
    for axes, (image, said, label) in zip(grid, pictures, strict=False):
        axes.imshow(1 - image.numpy(), vmin=0, vmax=1)
        without_ticks(axes, GREEN if said == label else VERMILION)
        axes.set_xlabel(f"“{said}”" if said == label else f"“{said}”\nis a {label}")
    axes = below.subplots()
    plot_points(axes, points, ORANGE, "^-", "")
    mark_labels(axes, points)
    axes.set_title("the same network, trained briefly with fewer labels")
