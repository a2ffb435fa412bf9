"""Every row is told from every other, by name, colour and shape, on a white and on a dark page."""

import pytest

from ssl_zoo.report.comparison import Comparison
from ssl_zoo.report.report import compare_folders
from ssl_zoo.report.series import LABEL_LETTERS, ROW_COLOURS, make_series, row_names
from tests.report.records import save_sweep


@pytest.fixture(scope="module")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    folder = tmp_path_factory.mktemp("sweep")
    save_sweep(folder, 40, seeds=1)
    return compare_folders(folder).comparison


def test_no_two_rows_look_alike(comparison: Comparison) -> None:
    series = make_series(comparison)
    assert len(series) == 40
    assert len({(each.colour, each.shape) for each in series}) == 40
    assert len({each.label for each in series}) == 40
    assert all(len(line) <= LABEL_LETTERS for each in series for line in each.label.split("\n"))


def luminance(colour: str) -> float:
    """Relative luminance by WCAG 2."""
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize("ground", ["#ffffff", "#0d1117"])
def test_colours_are_seen_on_both_grounds(ground: str) -> None:
    for colour in ROW_COLOURS:
        light, dark = sorted((luminance(colour), luminance(ground)), reverse=True)
        assert (light + 0.05) / (dark + 0.05) > 2.2, colour


def test_names_hold_what_differs(comparison: Comparison) -> None:
    names = row_names(comparison)
    assert len(set(names)) == 40
    assert "moco (method.temperature=0.15)" in names
