"""Figures hold every row and number, and Vega-Lite draws them."""

import itertools
from pathlib import Path

import pytest

from ssl_zoo.report import figures, vega
from ssl_zoo.report.comparison import Comparison
from ssl_zoo.report.report import compare_folders
from tests.report.records import save_run, save_sweep


@pytest.fixture(scope="module")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    folder = tmp_path_factory.mktemp("sweep")
    save_sweep(folder, 40)
    return compare_folders(folder).comparison


def test_figures_hold_the_numbers(comparison: Comparison) -> None:
    drawn = {figure.name: figure for figure in figures.make_figures(comparison)}
    assert list(drawn) == ["accuracy", "compute", "labels", "curves", "classes", "cka"]
    row = comparison.rows[0]
    mean = next(
        value
        for value in drawn["accuracy"].spec["data"]["values"]
        if (value["row"], value["metric"], value["kind"]) == (0, "linear/top1", "mean")
    )
    estimate = row.estimates["linear/top1"]
    assert mean["value"] == pytest.approx(100 * estimate.mean)
    assert (mean["low"], mean["high"]) == pytest.approx([100 * end for end in estimate.interval(True) or ()])
    for figure in drawn.values():
        assert {value["row"] for value in figure.spec["data"]["values"]} == set(range(40))
        assert figure.alt
    costs = {value["flops"] for value in drawn["compute"].spec["data"]["values"]}
    assert costs == {number * 1e12 for number in range(1, 9)}


def test_the_axis_comes_first(comparison: Comparison) -> None:
    by_seconds = {figure.name: figure for figure in figures.make_figures(comparison, "seconds")}
    against = next(control for control in by_seconds["compute"].controls if control.name == "axis")
    assert [value for value, _ in against.options] == ["seconds", "flops", "examples"]
    assert figures.make_figures(comparison, "labels")[0].name == "labels"
    assert "have spent the same training seconds and training examples" in by_seconds["compute"].caption


def test_every_choice_is_drawn_without_a_warning(tmp_path: Path) -> None:
    import vl_convert

    save_sweep(tmp_path, 3)
    save_run(tmp_path / "large", "mae", 3, budget={"kind": "steps", "value": 1, "flops": 1e16, "seconds": 1e5})
    comparison = compare_folders(tmp_path).comparison
    for figure in figures.make_figures(comparison):
        for values in itertools.product(*([value for value, _ in control.options] for control in figure.controls)):
            choice = {control.name: value for control, value in zip(figure.controls, values, strict=True)}
            params = [{**each, "value": choice.get(each["name"], each["value"])} for each in figure.spec["params"]]
            text = vl_convert.vegalite_to_svg(figure.spec | {"params": params, "width": 300}, vl_version=vega.VEGA_LITE)
            assert "NaN" not in text, (figure.name, choice)
            assert choice.get("metric", "")[:5] in text
            assert text.count("<path") > 3
