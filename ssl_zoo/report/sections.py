"""The parts of a report beside the leaderboard, for page and Markdown alike."""

from collections.abc import Sequence

from ssl_zoo.report.board import Section
from ssl_zoo.report.class_view import class_section
from ssl_zoo.report.comparison import Comparison
from ssl_zoo.report.rank_view import rank_section
from ssl_zoo.report.series import Series


def make_sections(comparison: Comparison, series: Sequence[Series]) -> list[Section]:
    """Returns the sections for which the runs have data."""
    found = [rank_section(comparison, series), class_section(comparison, series)]
    return [section for section in found if section is not None]
