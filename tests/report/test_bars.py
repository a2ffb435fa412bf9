"""A figure is an image of what it is given, small enough to embed and safe to look at."""

import base64
import xml.etree.ElementTree as ElementTree

import pytest

from ssl_zoo.report.bars import Bar, plot_bars

SVG = "{http://www.w3.org/2000/svg}"


def image(*args: object, **kwargs: object) -> tuple[ElementTree.Element, str]:
    kind, _, data = plot_bars(*args, **kwargs).partition(",")  # type: ignore[arg-type]
    assert kind == "data:image/svg+xml;base64"
    text = base64.b64decode(data).decode()
    assert len(text) < 200_000
    return ElementTree.fromstring(text), text


def test_it_shows_title_labels_and_values() -> None:
    bars = [
        Bar("simclr", "85.0 ± 9.0", (81.0, 86.0, 88.0), (76.0, 94.0), 30.0),
        Bar("by <&>\nol", "80.0", (80.0,), None, None),
    ]
    root, text = image("knn/top1 %", bars, limit=100)
    assert root.tag == f"{SVG}svg"
    for shown in ("knn/top1 %", "simclr", "85.0 ± 9.0", "by &lt;&amp;&gt;", "before training"):
        assert f"<!-- {shown} -->" in text


def test_no_baseline_no_legend() -> None:
    assert "before training" not in image("rankme", [Bar("a", "3", (3.0,), None, None)])[1]


@pytest.mark.parametrize("values", [(80.0, 90.0), (1.0, 1.0)])
def test_a_logarithmic_axis_takes_an_interval_below_one(values: tuple[float, ...]) -> None:
    assert image("mask/perplexity", [Bar("mlm", "", values, (-220.0, 380.0), 8192.0)], is_log=True)
