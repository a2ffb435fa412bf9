"""Mean ranks over data sets as tables."""

from collections.abc import Sequence

import numpy as np

from ssl_zoo.report.board import NO_CELL, Board, Cell, Column, Line, Section
from ssl_zoo.report.comparison import Comparison
from ssl_zoo.report.display import to_plain_text
from ssl_zoo.report.estimate import is_accuracy
from ssl_zoo.report.metrics import meaning_of
from ssl_zoo.report.ranks import KINDS, Ranking, find_rankings
from ssl_zoo.report.series import SHAPES, Series, row_names


def rank_section(comparison: Comparison, series: Sequence[Series]) -> Section | None:
    """The tables of rows and sets; None where no two rows share two sets."""
    rankings = find_rankings(comparison.rows, comparison.label)
    if not rankings:
        return None
    notes = [
        "The mean rank is over the sets that all rows of a table have been measured on: 1 is the best, and equal "
        "values share their ranks. A tenth of a point on one set weighs as much as ten points on another, and the sets "
        "are few: it sums up, and tests nothing."
    ]
    for ranking in rankings:
        notes += [f"{KINDS[ranking.kind]}: {note}" for note in ranking.notes]
    return Section("ranks", "Several data sets", notes, [_board(comparison, series, one) for one in rankings])


def _board(comparison: Comparison, series: Sequence[Series], ranking: Ranking) -> Board:
    looks, names = {id(each.row): each for each in series}, row_names(comparison)
    columns = [Column("row", "", False), Column("mean rank", "Over the sets that all rows have; 1 is the best.", True)]
    for name, key in ranking.sets.items():
        columns.append(Column(f"{to_plain_text(name)}{' %' * is_accuracy(key)}", meaning_of(key), True))
    lines = []
    for row, ranks, mean in zip(ranking.rows, ranking.ranks, ranking.mean_ranks, strict=True):
        look = looks[id(row)]
        cells = [Cell(names[look.number], "", names[look.number], False)]
        cells.append(Cell(f"{mean:.2f}", "", float(mean), True))
        for key, rank in zip(ranking.sets.values(), ranks, strict=True):
            small = f"rank {rank:g}"
            known = np.isfinite(rank)
            cells.append(Cell(row.cell(key), small, row.estimates[key].mean, True) if known else NO_CELL)
        lines.append(Line(cells, look.colour, SHAPES[look.shape], comparison.badge(row)))
    return Board(KINDS[ranking.kind], columns, lines)
