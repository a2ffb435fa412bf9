"""Every kind of image becomes right pixels, or an error that names it."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ssl_zoo.data.decode import UnreadableImage, open_image, resize_and_crop, to_array
from tests.data.pictures import encode, picture


def colour(encoded: bytes | Image.Image, in_chans: int = 3) -> list[int]:
    """The value of the first pixel."""
    return to_array(open_image(encoded, "it", in_chans))[:, 0, 0].tolist()


def png(width: int, height: int, depth: int, kind: int, rows: bytes, *extra: tuple[bytes, bytes]) -> bytes:
    """A PNG file of any kind, also such as Pillow does not write."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    chunks = [(b"IHDR", head), *extra, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(name, data) for name, data in chunks)


def test_rgb_and_grey_are_as_they_are() -> None:
    image = picture(0, 5, 7)
    pixels = np.asarray(image)
    assert (to_array(open_image(encode(image), "it", 3)) == pixels.transpose(2, 0, 1)).all()
    grey = image.convert("L")
    assert (to_array(open_image(encode(grey), "it", 1)) == np.asarray(grey)[None]).all()
    assert (to_array(open_image(encode(grey), "it", 3)) == np.asarray(grey)).all()
    assert (to_array(open_image(encode(image), "it", 1)) == np.asarray(image.convert("L"))[None]).all()


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_16_bits_are_scaled_not_clipped(kind: str) -> None:
    ramp = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    found = to_array(open_image(encode(Image.fromarray(ramp), kind), "it", 1))[0]
    assert (found == np.round(ramp / 257)).all()
    assert found.min() == 0
    assert found.max() == 255
    assert (to_array(open_image(encode(Image.fromarray(ramp), kind), "it", 3)) == found).all()


def test_16_bit_colour_keeps_its_upper_half() -> None:
    row = b"\0" + struct.pack(">HHH", 0x00FF, 0x80FF, 0xFFFF)
    assert colour(png(1, 1, 16, 2, row)) == pytest.approx([0, 128, 255], abs=1)


def test_palette_one_bit_and_cmyk() -> None:
    red = Image.new("RGB", (4, 4), (200, 0, 0))
    assert colour(encode(red.quantize(4))) == [200, 0, 0]
    assert colour(encode(Image.new("1", (4, 4), 1))) == [255, 255, 255]
    assert colour(encode(Image.new("1", (4, 4), 0)), in_chans=1) == [0]
    assert colour(encode(red.convert("CMYK"), "JPEG", quality=100)) == pytest.approx([200, 0, 0], abs=3)
    assert colour(encode(red.convert("CMYK"), "TIFF"), in_chans=1) == pytest.approx([60], abs=2)


def test_transparency_is_laid_on_white() -> None:
    assert colour(encode(Image.new("RGBA", (4, 4), (200, 0, 0, 0)))) == [255, 255, 255]
    assert colour(encode(Image.new("RGBA", (4, 4), (200, 0, 0, 255)))) == [200, 0, 0]
    assert colour(encode(Image.new("RGBA", (4, 4), (200, 0, 0, 128)))) == pytest.approx([227, 127, 127], abs=1)
    assert colour(encode(Image.new("LA", (4, 4), (0, 0))), in_chans=1) == [255]
    hidden = Image.new("P", (4, 4), 0)
    hidden.putpalette([9, 9, 9])
    assert colour(encode(hidden, transparency=0)) == [255, 255, 255]
    assert colour(png(1, 1, 8, 2, b"\0\1\2\3", (b"tRNS", b"\0\1\0\2\0\3"))) == [255, 255, 255]


def test_the_camera_s_orientation_is_applied() -> None:
    image = Image.new("RGB", (8, 4))
    image.paste((255, 255, 255), (0, 0, 4, 4))  # the left half is white
    exif = Image.Exif()
    exif[0x0112] = 6  # "turn by 90 degrees clockwise"
    turned = to_array(open_image(encode(image, "JPEG", exif=exif, quality=100), "it", 3))
    assert turned.shape == (3, 8, 4)
    assert turned[:, 0].min() > 250  # what was left is up
    assert turned[:, -1].max() < 5


def test_an_animation_gives_its_first_frame() -> None:
    first, second = Image.new("RGB", (4, 4), (255, 0, 0)), Image.new("RGB", (4, 4), (0, 0, 255))
    assert colour(encode(first, "GIF", save_all=True, append_images=[second])) == [255, 0, 0]


def test_values_without_a_known_range_are_refused() -> None:
    ramp = np.linspace(0, 1, 16, dtype=np.float32).reshape(4, 4)
    with pytest.raises(UnreadableImage, match=r"^it: floating-point pixels have no known range: convert"):
        open_image(encode(Image.fromarray(ramp), "TIFF"), "it", 3)
    with pytest.raises(UnreadableImage, match=r"^it: 32-bit pixels have no known range"):
        open_image(encode(Image.fromarray(ramp.astype(np.int32)), "TIFF"), "it", 3)


def test_what_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    jpeg, png_file = encode(noise, "JPEG"), encode(noise)
    overwritten = bytearray(png_file)
    overwritten[100:140] = bytes(40)
    cases = {
        "truncated": jpeg[: len(jpeg) // 2],
        "broken|truncated": bytes(overwritten),
        "not an image file": b"<html>not found</html>",
    }
    for cause, data in {**cases, "not an image": b""}.items():
        path = tmp_path / "photo.jpg"
        path.write_bytes(data)
        with pytest.raises(UnreadableImage, match=rf"photo\.jpg: .*({cause})"):
            open_image(path, str(path), 3)
    with pytest.raises(UnreadableImage, match=r"gone\.jpg: .*No such file"):
        open_image(tmp_path / "gone.jpg", "gone.jpg", 3)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(UnreadableImage, match=r"^it: Image size \(4096 pixels\).*decompression bomb"):
        open_image(png_file, "it", 3)


def test_random_damage_is_always_an_unreadable_image() -> None:
    rng, image = np.random.default_rng(0), picture(1, 40, 30)
    refused = 0
    for kind, mode in [("JPEG", "RGB"), ("JPEG", "CMYK"), ("PNG", "RGBA"), ("PNG", "P"), ("GIF", "P"), ("BMP", "RGB")]:
        good = encode(image.convert(mode), kind)
        for _ in range(60):
            bad = bytearray(good)
            bad[rng.integers(len(bad))] = rng.integers(256)
            try:
                open_image(bytes(bad[: rng.integers(1, len(bad) + 1)]), "it", 3)
            except UnreadableImage:
                refused += 1
    assert refused > 100


@pytest.mark.parametrize(("width", "height"), [(20, 10), (10, 20), (10, 10), (4, 4), (33, 7), (3, 50)])
def test_resize_and_crop_takes_the_middle(width: int, height: int) -> None:
    image = picture(2, width, height)
    found = resize_and_crop(image, 10)
    assert found.size == (10, 10)
    scale = 10 / min(width, height)
    x, y = (width * scale - 10) / 2, (height * scale - 10) / 2
    middle = image.resize(
        (10, 10), Image.Resampling.BILINEAR, (x / scale, y / scale, (x + 10) / scale, (y + 10) / scale)
    )
    assert np.abs(np.asarray(found, int) - np.asarray(middle, int)).mean() < 12  # crop edges fall on whole pixels
    assert resize_and_crop(found, 10) is found
