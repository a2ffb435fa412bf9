"""What the figures have in common: a width that a phone shows undistorted, one size of type, colours for everybody.

The colours are those of Okabe and Ito, "Color Universal Design" (2008), https://jfly.uni-koeln.de/color/, which people
with any kind of colour vision can tell apart; no figure says anything by colour alone.
"""

import io
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLACK = "#000000"
MUTED = "#767676"
ORANGE = "#E69F00"
GREEN = "#009E73"
BLUE = "#0072B2"
VERMILION = "#D55E00"

INCHES_WIDE = 5.2
"""Inches of every figure. Its type of 10 points is then 10 pixels high on a phone of 390 pixels."""
STYLE: dict[Any, Any] = {
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.labelsize": 10,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "image.cmap": "gray",
    "image.interpolation": "nearest",
}


def as_png(height: float, plot: Callable[["Figure"], None], dpi: int = 150) -> bytes:
    """Draws a figure and returns the content of a PNG file of 256 colours, a third as large as one of all colours.

    Args:
        height: in inches.
        plot: draws on the empty figure that it is given.
        dpi: pixels per inch; fewer for photographs, which make large files.
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from PIL import Image

    drawn, packed = io.BytesIO(), io.BytesIO()
    with rc_context(STYLE):
        figure = Figure(figsize=(INCHES_WIDE, height), layout="constrained", dpi=dpi)
        FigureCanvasAgg(figure)  # needs no display
        plot(figure)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # shown as boxes
            figure.savefig(drawn, format="png")
    Image.open(drawn).convert("RGB").quantize(256).save(packed, "PNG", optimize=True)
    return packed.getvalue()


def without_ticks(axes: "Axes", frame: str | None = None) -> None:
    """Removes the ticks of an image, and its frame or gives it one of this colour."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(frame is not None)
    if frame is not None:
        axes.spines[:].set(color=frame, linewidth=2)
