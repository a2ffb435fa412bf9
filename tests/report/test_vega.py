"""Axes end where the data does, and a specification becomes a PDF."""

from pathlib import Path

import pytest

from ssl_zoo.report.vega import bounds_of, draw_pdf, fit, library


@pytest.mark.parametrize("numbers", [[0.5], [0.0, 0.0], [-1.0, 3.0], [1e3, 1e9]])
@pytest.mark.parametrize("is_log", [False, True])
def test_an_axis_ends_where_the_data_does(numbers: list[float], is_log: bool) -> None:
    if is_log and min(numbers) <= 0:
        return
    low, high = fit(numbers, is_log)
    assert low < min(numbers) <= max(numbers) < high
    if not is_log and max(numbers) > min(numbers):
        assert high - low < 1.2 * (max(numbers) - min(numbers))


def test_bounds_are_of_each_metric() -> None:
    values = [{"metric": name, "low": low, "high": low + 1} for name, low in (("a", 0.0), ("a", 9.0), ("b", 500.0))]
    found = bounds_of(values, ("low", "high"))
    assert found["a"] == pytest.approx([-0.6, 10.6])
    assert found["b"] == pytest.approx([499.94, 501.06])


def test_pdf() -> None:
    spec = {"data": {"values": [{"a": 1}]}, "mark": "point", "encoding": {"x": {"field": "a", "type": "quantitative"}}}
    assert draw_pdf(spec).startswith(b"%PDF")


def test_the_library_is_kept_and_is_made_without_a_cache_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_ZOO_CACHE", str(tmp_path / "cache"))
    whole = library.__wrapped__()
    assert "window.vegaEmbed=" in whole
    assert "</script" not in whole.lower()
    monkeypatch.setattr("vl_convert.javascript_bundle", lambda *_: "made again")
    assert library.__wrapped__() == whole
    (tmp_path / "file").touch()
    monkeypatch.setenv("SSL_ZOO_CACHE", str(tmp_path / "file"))
    assert library.__wrapped__() == "made again"
