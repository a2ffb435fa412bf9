"""Words hidden in sentences, and what a network would put there before and after training."""

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from ssl_zoo.introduction.figure import BLUE, MUTED, as_png
from ssl_zoo.report.display import escape_figure_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

log = logging.getLogger(__name__)

SENTENCES = (
    "Return True [MASK] the file exists.",
    "This function returns a [MASK] of strings.",
    "The default value is [MASK].",
)
NUM_GUESSES = 4
"""Guesses that are shown of each sentence."""

Guesses = Sequence[tuple[str, float]]
"""Words with their probabilities, best first."""


def draw_words(before: Sequence[Guesses], after: Sequence[Guesses], metrics: Mapping[str, float]) -> bytes:
    """The likeliest words for the blank of each sentence, before and after training.

    Args:
        before: guesses for each of `SENTENCES`.
        after: the same after training.
        metrics: those of the run, which was evaluated by `mask`.

    Returns:
        The content of a PNG file.
    """
    for sentence, old, new in zip(SENTENCES, before, after, strict=True):
        for when, guesses in (("before", old), ("after", new)):
            log.info("%s %s: %s", sentence, when, ", ".join(f"{word} {100 * p:.1f} %" for word, p in guesses))
    titles = [f"{when} training: {100 * metrics[key]:.0f} of 100 right" for when, key in
              (("before", "init/mask/top1"), ("after", "mask/top1"))]  # fmt: skip
    return as_png(1.75 * len(SENTENCES) + 0.5, partial(_plot, titles=titles, before=before, after=after))


def _plot(figure: "Figure", titles: list[str], before: Sequence[Guesses], after: Sequence[Guesses]) -> None:
    rows = figure.subfigures(len(SENTENCES), 1, squeeze=False)[:, 0]
    longest = max(p for guesses in (*before, *after) for _, p in guesses)
    for sentence, row, old, new in zip(SENTENCES, rows, before, after, strict=True):
        row.suptitle(sentence.replace("[MASK]", "▁▁▁▁"), fontsize=10, fontweight="bold")
        for axes, guesses, colour in zip(row.subplots(1, 2), (old, new), (MUTED, BLUE), strict=True):
            _plot_guesses(axes, guesses, colour, longest)
        if row is rows[0]:
            for axes, title in zip(row.axes, titles, strict=True):
                axes.set_title(title)


def _plot_guesses(axes: "Axes", guesses: Guesses, colour: str, longest: float) -> None:
    places = range(len(guesses))
    axes.barh(places, [100 * p for _, p in guesses], color=colour)
    axes.set_yticks(places, [escape_figure_text(word) for word, _ in guesses])
    axes.invert_yaxis()
    axes.set(xlim=(0, 130 * longest), xticks=[])
    axes.spines[["bottom", "top", "right"]].set_visible(False)
    for place, (_, p) in enumerate(guesses):
        axes.text(100 * p, place, f" {100 * p:.1f} %", va="center", fontsize=9)
