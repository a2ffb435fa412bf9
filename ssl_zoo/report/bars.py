"""Plots one metric as a bar chart: mean, interval, individual runs, and the value before training."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

from ssl_zoo.report import display

BAR_COLOUR = "#2f6f8f"
BASELINE_COLOUR = "#c3c9d0"
TEXT_COLOUR = "#22303c"
LABEL_COLOUR = "#6b7785"


@dataclass(frozen=True)
class Bar:
    """One bar.

    Attributes:
        label: name of the row.
        text: the formatted value.
        values: one value per run.
        interval: interval of their mean, None if unknown.
        baseline: the value before training, None if not measured.
    """

    label: str
    text: str
    values: tuple[float, ...]
    interval: tuple[float, float] | None
    baseline: float | None

    @property
    def mean(self) -> float:
        """Mean over the runs."""
        return sum(self.values) / len(self.values)


def plot_bars(title: str, bars: Sequence[Bar], is_log: bool = False, limit: float | None = None) -> str:
    """Plots horizontal bars and returns the SVG as the data URI of an image.

    Args:
        title: title of the figure.
        bars: the bars, from top to bottom.
        is_log: use a logarithmic axis starting at 1.
        limit: largest possible value, None if unbounded.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 0.9 + 0.56 * len(bars)), layout="constrained")
    axes = figure.add_subplot()
    # The bars: trained value with interval, single runs, and below it the value before training.
    for place, bar in enumerate(bars):
        axes.barh(place - 0.1, bar.mean, 0.42, color=BAR_COLOUR, label="trained" if place == 0 else None)
        if bar.interval is not None:
            low, high = bar.interval
            error = [[bar.mean - low], [high - bar.mean]]
            axes.errorbar(bar.mean, place - 0.1, xerr=error, color=TEXT_COLOUR, capsize=4, linewidth=1.4)
        if len(bar.values) > 1:
            height = [place - 0.1] * len(bar.values)
            axes.plot(bar.values, height, "o", color="white", markeredgecolor=TEXT_COLOUR, markersize=3.5, zorder=3)
        if bar.baseline is not None:
            axes.barh(place + 0.24, bar.baseline, 0.18, color=BASELINE_COLOUR)
        end = max([bar.interval[1] if bar.interval else bar.mean, *bar.values])
        axes.annotate(
            display.escape_figure_text(bar.text),
            (end, place - 0.1),
            (7, 0),
            textcoords="offset points",
            va="center",
            fontsize=9.5,
            color=TEXT_COLOUR,
        )
    if any(bar.baseline is not None for bar in bars):
        axes.barh([0], [0], color=BASELINE_COLOUR, label="before training")
    # Axes and labels.
    axes.set_yticks(
        range(len(bars)), [display.escape_figure_text(bar.label) for bar in bars], fontsize=10, color=TEXT_COLOUR
    )
    axes.invert_yaxis()
    if is_log:
        axes.set_xscale("log")
        axes.set_xlim(left=1)
        axes.minorticks_off()
    elif limit is not None:
        axes.set_xlim(0, limit * 1.18)
        axes.set_xticks([limit * tick / 5 for tick in range(6)])
    else:
        axes.margins(x=0.18)
    axes.tick_params(axis="both", length=0, labelcolor=TEXT_COLOUR)
    axes.tick_params(axis="x", labelsize=9, labelcolor=LABEL_COLOUR)
    axes.grid(axis="x", color="#e6e9ed", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[:].set_visible(False)
    axes.set_title(display.escape_figure_text(title), loc="left", fontsize=11.5, fontweight="bold", color=TEXT_COLOUR)
    if any(bar.baseline is not None for bar in bars):
        figure.legend(loc="outside lower right", ncols=2, frameon=False, fontsize=9, labelcolor=LABEL_COLOUR)
    file = io.BytesIO()
    figure.savefig(file, format="svg")
    return "data:image/svg+xml;base64," + base64.b64encode(file.getvalue()).decode()
