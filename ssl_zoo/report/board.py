"""Tables of a report: what they hold, for the page and as plain text."""

from collections.abc import Sequence
from typing import NamedTuple


class Column(NamedTuple):
    """A column of a table: its name, what it means, and whether it holds numbers."""

    name: str
    meaning: str
    is_number: bool


class Cell(NamedTuple):
    """A cell of a table: its text, a smaller line below, what to sort by ("" for nothing), whether it is a number."""

    text: str
    small: str
    value: float | str
    is_number: bool


class Line(NamedTuple):
    """A line of a table: cells, colour and symbol of its row in the figures, what marks it ("" for nothing)."""

    cells: list[Cell]
    colour: str
    symbol: str
    badge: str


class Board(NamedTuple):
    """A table."""

    caption: str
    columns: list[Column]
    lines: list[Line]


class Section(NamedTuple):
    """A part of a report: a word for its place in the page, heading, how to read it, its tables."""

    name: str
    title: str
    notes: list[str]
    boards: list[Board]


NO_CELL = Cell("", "", "", True)
"""Where there is no number."""


def to_lines(board: Board) -> list[list[str]]:
    """A header and one line per row; what is small stands in brackets."""

    def text(cell: Cell) -> str:
        return f"{cell.text} ({cell.small})" if cell.small else cell.text

    def first(line: Line) -> str:
        return f"{line.cells[0].text} [{line.badge}]" if line.badge else line.cells[0].text

    lines: Sequence[list[str]] = [[first(line), *map(text, line.cells[1:])] for line in board.lines]
    return [[column.name for column in board.columns], *lines]
