"""A picture finds its sentence: how alike ten pictures and ten sentences are, before and after training."""

import logging
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from ssl_zoo.evaluators.proportion import Proportion
from ssl_zoo.introduction.figure import BLACK, as_png, without_ticks

if TYPE_CHECKING:
    from matplotlib.figure import Figure, SubFigure

log = logging.getLogger(__name__)


class Embedded(NamedTuple):
    """Pictures and sentences as points of one space.

    Attributes:
        pictures: (N, D) unit vectors of the test pictures.
        sentences: (C, D) unit vectors, one sentence per class.
    """

    pictures: Tensor
    sentences: Tensor


def recall_at_one(embedded: Embedded, truth: Tensor) -> Proportion:
    """The share of pictures whose most similar sentence is the one about their class; recall at 1.

    Args:
        embedded: pictures and sentences.
        truth: (N,) int64, the classes of the pictures.
    """
    nearest = (embedded.pictures @ embedded.sentences.T).argmax(dim=1)
    return Proportion((nearest == truth).double().mean().item(), len(truth))


def first_of_each(truth: Tensor) -> Tensor:
    """(C,) int64, the row of the first picture of each class."""
    return torch.stack([(truth == label).nonzero()[0, 0] for label in truth.unique()])


def draw_pairs(images: Tensor, truth: Tensor, sentences: list[str], before: Embedded, after: Embedded) -> bytes:
    """The cosines of the first test picture of each class and the sentence of each class.

    Args:
        images: (N, H, W) test pictures in [0, 1].
        truth: (N,) int64, their classes.
        sentences: one per class.
        before: pictures and sentences before training.
        after: the same after it.

    Returns:
        The content of a PNG file.
    """
    rows = first_of_each(truth)
    matrices, titles = [], []
    for when, embedded in (("before training", before), ("after training", after)):
        share = recall_at_one(embedded, truth)
        log.info("%s, the nearest sentence is right for %s of %d test pictures", when, share.percent, share.n)
        titles.append(f"{when}: {round(share * share.n)} of {share.n} pictures find their sentence")
        matrices.append(embedded.pictures[rows] @ embedded.sentences.T)
    return as_png(7.6, partial(_plot, titles=titles, matrices=matrices, images=images[rows], sentences=sentences))


def _plot(figure: "Figure", titles: list[str], matrices: list[Tensor], images: Tensor, sentences: list[str]) -> None:
    lowest = min(matrix.min().item() for matrix in matrices)
    for part, title, matrix in zip(figure.subfigures(2, 1, squeeze=False)[:, 0], titles, matrices, strict=True):
        part.suptitle(title, fontsize=10)
        _plot_matrix(part, matrix, images, sentences, lowest)


def _plot_matrix(part: "SubFigure", matrix: Tensor, images: Tensor, sentences: list[str], lowest: float) -> None:
    grid = part.add_gridspec(2, len(images), height_ratios=(1, len(sentences)))
    for column, image in enumerate(images):
        axes = part.add_subplot(grid[0, column])
        axes.imshow(1 - image.numpy(), vmin=0, vmax=1)
        without_ticks(axes)
    axes = part.add_subplot(grid[1, :])
    shown = axes.imshow(matrix.T.numpy(), cmap="cividis", vmin=lowest, vmax=1, aspect="auto")
    axes.set_yticks(range(len(sentences)), sentences)
    axes.set_xticks([])
    axes.tick_params(length=0)
    for column, row in enumerate(matrix.argmax(dim=1).tolist()):
        for colour, width in (("white", 4), (BLACK, 1.5)):  # seen on dark and on bright fields
            axes.plot(
                column, row, "o", markersize=8, markerfacecolor="none", markeredgecolor=colour, markeredgewidth=width
            )
    part.colorbar(shown, ax=axes, label="how alike (cosine)")
