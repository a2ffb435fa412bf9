"""One metric of several rows as a bar chart: the mean, its interval, the single runs, the same before training."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

from ssl_zoo.report import display

COLOUR, BASELINE, INK, FAINT = "#2f6f8f", "#c3c9d0", "#22303c", "#6b7785"


@dataclass(frozen=True)
class Bar:
    """values: one per run; interval: of their mean, None if unknown; baseline: None if not measured."""

    label: str
    text: str  # the value as it is to be read
    values: tuple[float, ...]
    interval: tuple[float, float] | None
    baseline: float | None

    @property
    def mean(self) -> float:
        """Mean over the runs."""
        return sum(self.values) / len(self.values)


def plot_bars(title: str, bars: Sequence[Bar], is_log: bool = False, limit: float | None = None) -> str:
    """An SVG of horizontal bars, as the data URI of an image.

    is_log: a logarithmic axis from 1, for what spans orders of magnitude; limit: the largest value there can be.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 0.9 + 0.56 * len(bars)), layout="constrained")
    axes = figure.add_subplot()
    for place, bar in enumerate(bars):
        axes.barh(place - 0.1, bar.mean, 0.42, color=COLOUR, label="trained" if place == 0 else None)
        if bar.interval is not None:
            low, high = bar.interval
            error = [[bar.mean - low], [high - bar.mean]]
            axes.errorbar(bar.mean, place - 0.1, xerr=error, color=INK, capsize=4, linewidth=1.4)
        if len(bar.values) > 1:
            height = [place - 0.1] * len(bar.values)
            axes.plot(bar.values, height, "o", color="white", markeredgecolor=INK, markersize=3.5, zorder=3)
        if bar.baseline is not None:
            axes.barh(place + 0.24, bar.baseline, 0.18, color=BASELINE)
        end = max([bar.interval[1] if bar.interval else bar.mean, *bar.values])
        axes.annotate(
            display.escape_figure_text(bar.text),
            (end, place - 0.1),
            (7, 0),
            textcoords="offset points",
            va="center",
            fontsize=9.5,
            color=INK,
        )
    if any(bar.baseline is not None for bar in bars):
        axes.barh([0], [0], color=BASELINE, label="before training")
    axes.set_yticks(range(len(bars)), [display.escape_figure_text(bar.label) for bar in bars], fontsize=10, color=INK)
    axes.invert_yaxis()
    if is_log:
        axes.set_xscale("log")
        axes.set_xlim(left=1)
        axes.minorticks_off()
    elif limit is not None:
        axes.set_xlim(0, limit * 1.18)
        axes.set_xticks([limit * part / 5 for part in range(6)])
    else:
        axes.margins(x=0.18)
    axes.tick_params(axis="both", length=0, labelcolor=INK)
    axes.tick_params(axis="x", labelsize=9, labelcolor=FAINT)
    axes.grid(axis="x", color="#e6e9ed", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[:].set_visible(False)
    axes.set_title(display.escape_figure_text(title), loc="left", fontsize=11.5, fontweight="bold", color=INK)
    if any(bar.baseline is not None for bar in bars):
        figure.legend(loc="outside lower right", ncols=2, frameon=False, fontsize=9, labelcolor=FAINT)
    file = io.BytesIO()
    figure.savefig(file, format="svg")
    return "data:image/svg+xml;base64," + base64.b64encode(file.getvalue()).decode()
