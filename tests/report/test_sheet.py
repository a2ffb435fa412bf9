import io

import numpy as np
import pytest
from PIL import Image

from ssl_zoo.report import sheet
from ssl_zoo.report.sheet import Picture, draw_sheet


def pixels(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


def test_each_picture_is_in_its_place() -> None:
    colours = ["red", "lime", "blue"]
    images = [Image.new("RGB", (sheet.SIDE, sheet.SIDE), colour) for colour in colours]
    found = pixels(draw_sheet([[Picture(image, "name", "0.93") for image in images]] * 2, "title"))
    for colour in ([255, 0, 0], [0, 255, 0], [0, 0, 255]):
        rows, columns = (found == colour).all(axis=2).nonzero()
        assert len(rows) == 2 * sheet.SIDE**2
        assert np.ptp(columns) + 1 == sheet.SIDE
    red, lime = ((found == colour).all(axis=2).nonzero()[1] for colour in ([255, 0, 0], [0, 255, 0]))
    assert lime.min() - red.max() > 2 * sheet.GAP, "the query stands apart"


def test_labels_that_match_are_marked() -> None:
    image = Image.new("RGB", (8, 8))

    def drawn(matches: bool | None) -> bytes:
        return draw_sheet([[Picture(image, "a", "b", matches)]], "title")

    assert len({drawn(True), drawn(False), drawn(None)}) == 3


@pytest.mark.parametrize("name", ["x" * 500, "", "\x1b[31mred\nline", "猫", "bad\udcffname", "$5_$"])
def test_any_name_is_drawn(name: str) -> None:
    assert pixels(draw_sheet([[Picture(Image.new("RGB", (8, 4)), name, name)]], name)).shape[2] == 3
