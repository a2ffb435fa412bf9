"""The page is one file that asks for nothing, and no name can become markup."""

import base64
import io
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from ssl_zoo.report import map_page
from ssl_zoo.report.map_page import Colouring, colour_by, pack_pictures, picture_side, shorten_texts

NASTY = "<script>alert(1)</script><img src=x onerror=alert(1)>"


def data_of(page: str) -> dict:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    return json.loads(found[1])


def decode(text: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), "<u2")


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict]] = []

    def handle_starttag(self, tag: str, attributes: list) -> None:
        self.found.append((tag, dict(attributes)))


@pytest.fixture
def page() -> str:
    colouring = colour_by("label", [NASTY, None, "b"])
    xy = np.array([[0.0, 0.0], [2.0, 1.0], [1.0, 0.5]])
    return map_page.map_page(NASTY, "about\u2028", xy, [NASTY, "__DATA__", "c"], [colouring], texts=[NASTY, "", "x"])


def test_no_name_is_markup(page: str) -> None:
    tags, plain = Tags(), Tags()
    tags.feed(page)
    plain.feed(map_page.TEMPLATE.read_text())
    assert tags.found == plain.found, "the names add no element"
    data = data_of(page)
    assert data["title"] == data["names"][0] == data["texts"][0] == NASTY
    assert "innerHTML" not in page
    assert "document.write" not in page


def test_nothing_is_requested(page: str) -> None:
    tags = Tags()
    tags.feed(page)
    for _, attributes in tags.found:
        links = [attributes[key] for key in ("src", "href", "action") if key in attributes]
        assert all(link.startswith("data:") for link in links)
    assert "default-src 'none'" in page
    assert not re.search(r"https?://|fetch\(|XMLHttpRequest|import\(|@import", page)


def test_places_keep_their_proportions(page: str) -> None:
    xy = decode(data_of(page)["xy"]).reshape(-1, 2).astype(int)
    assert xy[:, 0].tolist() == [0, 65535, 32768]
    assert np.abs(xy[1, 1] - xy[0, 1] - 32767) <= 1


def test_one_point_has_a_place() -> None:
    found = map_page.map_page("t", "a", np.zeros((1, 2)), ["n"], [Colouring("cluster", np.zeros(1), ["cluster 1"])])
    assert decode(data_of(found)["xy"]).tolist() == [32768, 32768]


def test_the_legend_is_in_natural_order_with_unknown_last() -> None:
    found = colour_by("label", ["class 10", "class 2", None, "Alpha", "10", "9"])
    assert found.classes == ["9", "10", "Alpha", "class 2", "class 10", map_page.NO_LABEL]
    assert found.values.tolist() == [4, 3, 5, 2, 1, 0]
    assert found.unknown
    assert not colour_by("label", ["a"]).unknown


def test_pictures_are_found_by_their_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(map_page, "SHEET_SIDE", 64)
    shades = [20 * i for i in range(11)]
    packed = pack_pictures([Image.new("RGB", (20, 20), (shade,) * 3) for shade in shades])
    assert (packed.side, packed.columns, packed.each, len(packed.sheets)) == (20, 3, 9, 2)
    for number, shade in enumerate(shades):
        sheet = np.asarray(Image.open(io.BytesIO(packed.sheets[number // 9])))
        row, column = divmod(number % 9, 3)
        assert abs(int(sheet[20 * row + 10, 20 * column + 10, 0]) - shade) < 4


def test_the_page_is_bounded() -> None:
    assert picture_side(100) == 96
    for count in (10_000, 50_000, 100_000):
        assert count * picture_side(count) ** 2 <= map_page.PIXELS
    texts = shorten_texts(["a\nb\x1b[31m" + "x" * 10_000] * 50_000)
    assert sum(map(len, texts)) < 1.1 * map_page.LETTERS
    assert texts[0].startswith("a b")
