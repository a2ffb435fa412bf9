"""How each row of a comparison is called and looks, the same in the table and in all figures.

Colours are those of Okabe and Ito (2008), which people with any colour vision tell apart, with grey in place of black
and yellow, which are hard to see on a dark or a white page. After seven rows the colours come again with another shape
and dash.
"""

import textwrap
from typing import Any, NamedTuple

from ssl_zoo.report.comparison import Comparison
from ssl_zoo.report.row import ComparisonRow

ROW_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C8C8C")
SHAPES = {
    "circle": "●",
    "square": "■",
    "triangle-up": "▲",
    "diamond": "◆",
    "triangle-down": "▼",
    "cross": "✚",
}
DASHES = ([1, 0], [6, 3], [2, 2], [9, 3, 2, 3], [4, 2, 1, 2], [12, 4])
LABEL_LETTERS = 26
"""Of a line of a label: leaves room for the figure on a phone."""
LABEL_LINE = 14
"""Height of a line of a label, in pixels."""


class Series(NamedTuple):
    """How a row of the comparison looks in all figures.

    Attributes:
        number: of the row, from 0.
        row: the row.
        label: its name, in lines.
        colour: as #rrggbb.
        shape: of its points.
        dash: of its lines.
    """

    number: int
    row: ComparisonRow
    label: str
    colour: str
    shape: str
    dash: list[int]

    @property
    def look(self) -> dict[str, Any]:
        """The fields that the specifications look up by the number of the row."""
        return {"row": self.number, "label": self.label, "colour": self.colour, "shape": self.shape, "dash": self.dash}


def row_names(comparison: Comparison) -> list[str]:
    """The labels of the rows, in one line each; no two are the same."""
    names: list[str] = []
    for label in map(comparison.label, comparison.rows):
        same = sum(name == label or name.startswith(f"{label} #") for name in names)
        names.append(f"{label} #{same + 1}" if same else label)
    return names


def make_series(comparison: Comparison) -> list[Series]:
    """Gives each row its colour, shape and dash, in the order of the table."""
    series = []
    for number, (row, name) in enumerate(zip(comparison.rows, row_names(comparison), strict=True)):
        turn = number // len(ROW_COLOURS) % len(SHAPES)
        label = "\n".join(textwrap.wrap(name, LABEL_LETTERS))
        series.append(
            Series(number, row, label, ROW_COLOURS[number % len(ROW_COLOURS)], list(SHAPES)[turn], DASHES[turn])
        )
    return series
