"""The header of a TIFF tells what Pillow would drop; the pixels themselves are tested in test_decode."""

import io

import numpy as np
import pytest
from PIL import Image

from ssl_zoo.data.image.tiff import read_bands, read_header
from tests.data.pictures import encode, picture, tiff


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "CMYK", "YCbCr", "LAB", "I;16"])
def test_what_pillow_knows_is_left_to_it(mode: str) -> None:
    image = Image.new("I;16", (4, 4)) if mode == "I;16" else picture(0).convert("RGB")
    image = image.convert(mode) if mode not in ("I;16", "LAB") else Image.new(mode, (4, 4))
    header = read_header(io.BytesIO(encode(image, "TIFF")))
    assert header
    assert not header.beyond_pillow


def test_other_files_have_no_header() -> None:
    for content in (b"", b"II", encode(picture(0)), encode(picture(0), "JPEG")):
        assert read_header(io.BytesIO(content)) is None


def test_too_large_a_header_asks_for_no_memory() -> None:
    file = io.BytesIO(tiff(np.ones((4, 4, 5), np.uint8), t256=(60000,), t257=(60000,)))
    header = read_header(file)
    assert header
    with pytest.raises(ValueError, match="60000 x 60000 x 5 values: too large an image, or a damaged file"):
        read_bands(file, header)


def test_white_may_be_zero() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 4, 5), dtype=np.uint8)
    file = io.BytesIO(tiff(pixels, t262=(0,)))
    header = read_header(file)
    assert header
    assert (read_bands(file, header) == 255 - pixels).all()
