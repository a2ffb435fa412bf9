"""The heat map and the maps hold the numbers, in the colours of the legend, and are drawn."""

import csv
import io

import numpy as np
import pytest

from ssl_zoo.report import representation_view, vega
from ssl_zoo.report.comparison import Comparison
from ssl_zoo.report.report import compare_folders
from ssl_zoo.report.representation_view import cka_csv, cka_figure, map_classes, map_figures
from ssl_zoo.report.series import make_series
from tests.report.records import CLASSES, save_features, save_run


@pytest.fixture(scope="module")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    folder = tmp_path_factory.mktemp("sweep")
    for number, method in enumerate(("simclr", "vicreg", "byol")):
        save_run(folder / method, method, 0)
        save_features(folder / method, number, mapped=method != "byol")
    return compare_folders(folder).comparison


def test_the_heat_map_has_each_pair(comparison: Comparison) -> None:
    found, figure = comparison.representations, cka_figure(comparison, make_series(comparison))
    assert found is not None
    assert figure is not None
    values = {(value["of"] - 1, value["other"] - 1): value["value"] for value in figure.spec["data"]["values"]}
    assert values == {
        (one, other): pytest.approx(found.cka[one, other], abs=1e-3)
        for one in range(3)
        for other in range(3)
        if one != other
    }
    lines = list(csv.reader(io.StringIO(cka_csv(comparison) or "")))
    assert lines[0][1:] == [line[0] for line in lines[1:]]
    assert float(lines[1][2]) == pytest.approx(found.cka[0, 1], abs=1e-4)
    assert lines[1][1] == ""


def test_maps_are_of_those_that_have_one(comparison: Comparison) -> None:
    figures = map_figures(comparison, make_series(comparison))
    assert [figure.title for figure in figures] == ["vicreg, seed 0", "simclr, seed 0"]
    found = comparison.representations
    assert found is not None
    for figure, one in zip(figures, found.maps, strict=True):
        values = figure.spec["data"]["values"]
        assert [value["c"] for value in values] == found.y.tolist()
        assert [value["x"] for value in values] == (500 * (one.places[:, 0] + 1)).round().astype(int).tolist()
        assert len(vega.draw_pdf(figure.spec, width=200)) > 2000


def test_of_many_classes_the_most_frequent_have_colours(
    comparison: Comparison, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = comparison.representations
    assert found is not None
    assert [name for _, name, *_ in map_classes(found)] == CLASSES
    monkeypatch.setattr(representation_view, "MAX_COLOURED", 2)
    rare = found._replace(y=np.array([3] * 9 + [1] * 5 + [0, 2, -1]))
    assert [number for number, *_ in map_classes(rare)] == [1, 3]
    looks = {(colour, shape) for *_, colour, shape in map_classes(found)}
    assert len(looks) == 2
    assert representation_view.OTHER_COLOUR not in {colour for colour, _ in looks}
