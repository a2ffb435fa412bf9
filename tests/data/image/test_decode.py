"""Every kind of image becomes right pixels, or an error that names it."""

import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ssl_zoo.data.image.decode import (
    UnreadableImage,
    brightest,
    is_transparent,
    open_image,
    read_image_header,
    resize_and_crop,
)
from tests.data.pictures import encode, picture, tiff


def colour(encoded: bytes | Image.Image, in_chans: int = 3) -> list[int]:
    """The value of the first pixel."""
    return open_image(encoded, "it", in_chans)[:, 0, 0].tolist()


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
    assert (open_image(encode(image), "it", 3) == pixels.transpose(2, 0, 1)).all()
    grey = image.convert("L")
    assert (open_image(encode(grey), "it", 1) == np.asarray(grey)[None]).all()
    assert (open_image(encode(grey), "it", 3) == np.asarray(grey)).all()
    assert (open_image(encode(image), "it", 1) == np.asarray(image.convert("L"))[None]).all()


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_16_bits_are_scaled_not_clipped(kind: str) -> None:
    ramp = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    found = open_image(encode(Image.fromarray(ramp), kind), "it", 1)[0]
    assert (found == np.round(ramp / 257)).all()
    assert found.min() == 0
    assert found.max() == 255
    assert (open_image(encode(Image.fromarray(ramp), kind), "it", 3) == found).all()


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
    turned = open_image(encode(image, "JPEG", exif=exif, quality=100), "it", 3)
    assert turned.shape == (3, 8, 4)
    assert turned[:, 0].min() > 250  # what was left is up
    assert turned[:, -1].max() < 5


def test_an_animation_gives_its_first_frame() -> None:
    first, second = Image.new("RGB", (4, 4), (255, 0, 0)), Image.new("RGB", (4, 4), (0, 0, 255))
    assert colour(encode(first, "GIF", save_all=True, append_images=[second])) == [255, 0, 0]


def test_values_without_a_known_range_are_refused() -> None:
    ramp = np.linspace(0, 1, 16, dtype=np.float32).reshape(4, 4)
    with pytest.raises(UnreadableImage, match=r"^it: 32-bit floating-point pixels have no known range: convert"):
        open_image(encode(Image.fromarray(ramp), "TIFF"), "it", 3)
    with pytest.raises(UnreadableImage, match=r"^it: 32-bit signed pixels have no known range"):
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
    found = resize_and_crop(np.asarray(image).transpose(2, 0, 1), 10)
    assert found.shape == (3, 10, 10)
    scale = 10 / min(width, height)
    x, y = (width * scale - 10) / 2, (height * scale - 10) / 2
    middle = image.resize(
        (10, 10), Image.Resampling.BILINEAR, (x / scale, y / scale, (x + 10) / scale, (y + 10) / scale)
    )
    assert (
        np.abs(found.transpose(1, 2, 0).astype(int) - np.asarray(middle, int)).mean() < 12
    )  # crop edges fall on whole pixels
    assert resize_and_crop(found, 10) is found


@pytest.mark.parametrize("bands", [2, 4, 5, 13])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("deflate", "planar"), [(False, False), (True, False), (False, True), (True, True)])
def test_any_number_of_bands(bands: int, order: str, deflate: bool, planar: bool) -> None:
    rng = np.random.default_rng(bands)
    pixels = rng.integers(0, 256, (7, 5, bands), dtype=np.uint8)
    found = open_image(tiff(pixels, order, deflate, planar), "it", bands)
    assert (found == pixels.transpose(2, 0, 1)).all()
    deep = rng.integers(0, 2**12, (7, 5, bands), dtype=np.uint16)
    found = open_image(tiff(deep, order, deflate, planar), "it", bands, bits=12)
    assert (found == np.round(deep / (4095 / 255)).transpose(2, 0, 1)).all()
    with pytest.raises(
        UnreadableImage, match=rf"^it: {bands} bands, and data.in_chans=3. Give data.in_chans={bands} with"
    ):
        open_image(tiff(pixels, order, deflate, planar), "it", 3)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_bands_are_upright(orientation: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 4, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    expected = open_image(encode(Image.fromarray(pixels), exif=exif), "it", 3)
    five = np.concatenate([pixels, pixels[..., :2]], 2)
    assert (open_image(tiff(five, t274=(orientation,)), "it", 5)[:3] == expected).all()


def test_a_predictor_is_undone() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 4, 5), dtype=np.uint8)
    differences = np.diff(pixels, axis=1, prepend=np.zeros((6, 1, 5), np.uint8))
    assert (open_image(tiff(differences, deflate=True, t317=(2,)), "it", 5) == pixels.transpose(2, 0, 1)).all()


def test_a_fourth_band_is_no_transparency_unless_it_says_so() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 4, 4), dtype=np.uint8)
    unsaid = tiff(pixels, t262=(2,), t338=(0,))
    for encoded in (unsaid, tiff(pixels, t262=(2,), t338=(2,)), encode(Image.fromarray(pixels, "RGBA"))):
        assert (open_image(encoded, "it", 4) == pixels.transpose(2, 0, 1)).all()
    with pytest.raises(UnreadableImage, match=r"4 bands, and data.in_chans=3"):
        open_image(unsaid, "it", 3)
    with pytest.raises(UnreadableImage, match=r"3 bands, and data.in_chans=4"):
        open_image(encode(Image.fromarray(pixels[..., :3].copy())), "it", 4)


def test_grey_pages_are_channels() -> None:
    pages = [Image.fromarray(np.full((4, 4), value, np.uint8)) for value in (10, 20, 30)]
    encoded = encode(pages[0], "TIFF", save_all=True, append_images=pages[1:])
    assert colour(encoded) == [10, 20, 30]
    assert colour(encoded, 1) == [10]


@pytest.mark.parametrize(
    ("encoded", "message"),
    [
        (tiff(np.ones((4, 4, 5), np.uint16), t339=(2,) * 5), "16-bit signed pixels have no known range: convert"),
        (tiff(np.ones((4, 4, 1), np.uint16), t339=(2,)), "16-bit signed pixels have no known range"),
        (tiff(np.ones((4, 4, 3), np.float32), t339=(3,) * 3), "32-bit floating-point pixels have no known range"),
        (tiff(np.ones((4, 4, 1), np.uint32)), "32-bit unsigned pixels have no known range"),
        (tiff(np.ones((4, 4, 5), np.uint8), t259=(5,)), "a TIFF of 5 bands of 8 bits with compression 5, which is not"),
        (tiff(np.ones((4, 4, 5), np.uint8))[:30], "it: "),
    ],
)
def test_other_tiffs_are_named_for_what_they_are(encoded: bytes, message: str) -> None:
    with pytest.raises(UnreadableImage, match=message):
        open_image(encoded, "it", 5)


def test_the_bits_that_are_used() -> None:
    deep = np.linspace(0, 4095, 64).astype(np.uint16).reshape(8, 8)
    encoded = encode(Image.fromarray(deep))
    assert (open_image(encoded, "it", 1, bits=12)[0] == np.round(deep / (4095 / 255))).all()
    assert brightest(encoded) == 4095
    with pytest.raises(UnreadableImage, match=r"holds the value 4095, and data.bits=10 goes to 1023"):
        open_image(encoded, "it", 1, bits=10)
    colours = np.stack([deep] * 3, 2)
    rgb = tiff(colours, t262=(2,))
    assert (open_image(rgb, "it", 3, bits=12) == open_image(encoded, "it", 3, bits=12)).all()
    assert brightest(rgb) == 4095
    row = b"\0" + struct.pack(">HHH", 0x00FF, 0x0F00, 0x0FFF)
    assert brightest(png(1, 1, 16, 2, row)) == 257 * 15
    with pytest.raises(UnreadableImage, match=r"Pillow reads the upper 8 only: data.bits=12 cannot be kept. Convert"):
        open_image(png(1, 1, 16, 2, row), "it", 3, bits=12)
    assert brightest(encode(picture(0))) is None


@pytest.mark.parametrize("in_chans", [1, 3])
def test_a_pipe_is_no_image(tmp_path: Path, in_chans: int) -> None:
    os.mkfifo(tmp_path / "a.jpg")
    with pytest.raises(UnreadableImage, match=r"a.jpg: not a regular file"):
        open_image(tmp_path / "a.jpg", "a.jpg", in_chans)
    assert brightest(tmp_path / "a.jpg") is None
    assert not is_transparent(tmp_path / "a.jpg")


def test_transparency_is_noticed() -> None:
    assert is_transparent(encode(Image.new("RGBA", (4, 4), (200, 0, 0, 254))))
    assert not is_transparent(encode(Image.new("RGBA", (4, 4), (200, 0, 0, 255))))
    assert not is_transparent(encode(picture(0)))


def test_a_header_says_kind_size_and_bands(tmp_path: Path) -> None:
    image = picture(0, 12, 10)
    assert read_image_header(encode(image, "JPEG"), "a") == ("JPEG", 12, 10, 3)
    assert read_image_header(encode(image.convert("L")), "a") == ("PNG", 12, 10, 1)
    assert read_image_header(encode(image.convert("RGBA")), "a").bands == 3
    assert read_image_header(image.convert("L"), "a") == ("array", 12, 10, 1)
    assert read_image_header(tiff(np.zeros((6, 7, 5), np.uint16)), "a") == ("TIFF", 7, 6, 5)
    (tmp_path / "a.png").write_bytes(b"text")
    for damaged in (tmp_path / "a.png", tmp_path / "missing.png", tmp_path, b""):
        with pytest.raises(UnreadableImage, match=r"^name: "):
            read_image_header(damaged, "name")
