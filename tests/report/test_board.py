"""Tables are the same as plain text."""

from ssl_zoo.report.board import NO_CELL, Board, Cell, Column, Line, to_lines


def test_what_is_small_or_marked_stands_in_brackets() -> None:
    columns = [Column("row", "", False), Column("a", "", True), Column("b", "", True)]
    lines = [
        Line([Cell("simclr", "", "", False), Cell("93.1", "+1.0", 93.1, True), NO_CELL], "#000000", "*", "best"),
        Line([Cell("byol", "", "", False), Cell("92.1", "", 92.1, True), Cell("1", "", 1, True)], "#000000", "*", ""),
    ]
    found = to_lines(Board("caption", columns, lines))
    assert found == [["row", "a", "b"], ["simclr [best]", "93.1 (+1.0)", ""], ["byol", "92.1", "1"]]
