"""Decodes images of all common kinds to pixels, with errors that name the image and the cause."""

import io
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from PIL import Image, ImageOps

from ssl_zoo.data.image.tiff import HEIGHT, PHOTOMETRIC, RGB, WIDTH, Header, read_bands, read_header

Encoded = bytes | Path | Image.Image
"""What a source returns for one example: the bytes of an image file, its path, or pixels."""

WHITE = (255, 255, 255, 255)
"""Background of transparent pixels, as in a browser or a document."""

GREY = ("1", "L", "LA", "La", "I", "F")
"""Pillow's modes of grey images, besides those that begin with I;16."""

# What Pillow and `tiff` raise for damaged files of one format or another.
IMAGE_DAMAGE: tuple[type[Exception], ...] = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    OverflowError,
    struct.error,
    zlib.error,
)
IMAGE_DAMAGE += (KeyError, IndexError, TypeError, ZeroDivisionError)


UNREADABLE: tuple[type[Exception], ...] = (*IMAGE_DAMAGE, Image.DecompressionBombError)


class UnreadableImage(ValueError):
    """An image that cannot be decoded correctly; the message names it and the cause."""


def open_image(encoded: Encoded, name: str, in_chans: int, bits: int = 16) -> np.ndarray:
    """Decodes an image, upright and in its own size.

    16-bit values from 0 to 2^bits - 1 become 0 to 255; transparent pixels are composited on white; the EXIF orientation
    is applied. Of an animation the first frame is used; a TIFF with `in_chans` grey pages has a channel per page.

    Args:
        encoded: the image.
        name: of the image, for error messages.
        in_chans: 3 (colour), 1 (grey, ITU-R 601 luma), or the number of bands that the image must have.
        bits: number of bits that 16-bit images use.

    Returns:
        (in_chans, H, W) uint8.

    Raises:
        UnreadableImage: not an image, truncated, damaged, too large (a decompression bomb), of another number of bands
            than `in_chans` where neither is colour or grey, or of values whose range is not known: floating point,
            signed or 32-bit integers, more than `bits`.
    """
    try:
        if isinstance(encoded, Image.Image):
            return _from_pillow(encoded, in_chans, bits)
        with _stream(encoded) as file:
            header = read_header(file)
            if header and (header.beyond_pillow or (header.wide_colour and bits != 16)):
                return _from_bands(read_bands(file, header), header, in_chans, bits)
            file.seek(0)
            with Image.open(file) as image:
                return _from_pillow(image, in_chans, bits)
    except Image.UnidentifiedImageError as error:
        raise UnreadableImage(f"{name}: not an image file") from error
    except Image.DecompressionBombError as error:
        raise UnreadableImage(f"{name}: {error}") from error
    except IMAGE_DAMAGE as error:
        raise UnreadableImage(f"{name}: {error or type(error).__name__}") from error


@contextmanager
def _stream(encoded: bytes | Path) -> Iterator[BinaryIO]:
    """Opens the image. Raises OSError for a path without a regular file: reading a named pipe would never return."""
    if isinstance(encoded, Path) and encoded.exists() and not encoded.is_file():
        raise OSError("not a regular file but a folder, a pipe or a device")
    with io.BytesIO(encoded) if isinstance(encoded, bytes) else open(encoded, "rb") as file:
        yield file


def _from_bands(bands: np.ndarray, header: Header, in_chans: int, bits: int) -> np.ndarray:
    """Converts bands (H, W, n) uint8 or uint16 to (in_chans, H, W) uint8."""
    pixels, n = _to_8_bits(bands, bits), bands.shape[2]
    if n == 3 and in_chans == 1 and header.number(PHOTOMETRIC, 1) == RGB:
        pixels, n = np.asarray(Image.fromarray(pixels).convert("L"))[..., None], 1
    if n == 1 and in_chans == 3:
        pixels, n = pixels.repeat(3, axis=2), 3
    _check_bands(n, in_chans)
    return pixels.transpose(2, 0, 1).copy()


def _check_bands(n: int, in_chans: int) -> None:
    if n != in_chans:
        raise ValueError(
            f"{n} band{'s' * (n > 1)}, and data.in_chans={in_chans}. Give data.in_chans={n} with as many numbers in "
            "data.mean and data.std, or convert the image"
        )


def _to_8_bits(values: np.ndarray, bits: int) -> np.ndarray:
    """Scales uint16 values of which `bits` bits are used to uint8; uint8 is returned unchanged."""
    if values.dtype == np.uint8:
        return values
    top = 2**bits - 1
    if values.max() > top:
        raise ValueError(f"holds the value {values.max()}, and data.bits={bits} goes to {top}. Give a larger data.bits")
    return (values.astype(np.float32) * np.float32(255 / top)).round().astype(np.uint8)


def _from_pillow(image: Image.Image, in_chans: int, bits: int) -> np.ndarray:
    if image.format == "TIFF" and 1 < in_chans == getattr(image, "n_frames", 1) and len(image.getbands()) == 1:
        pages = []
        for page in range(in_chans):
            image.seek(page)
            pages.append(_from_pillow(image.copy(), 1, bits)[0])
        if len({page.shape for page in pages}) == 1:
            return np.stack(pages)
        image.seek(0)
    if _has_wide_colour(image) and bits != 16:
        raise ValueError(
            f"16 bits per colour, of which Pillow reads the upper 8 only: data.bits={bits} cannot be kept. "
            "Convert the image to TIFF"
        )
    ImageOps.exif_transpose(image, in_place=True)
    if image.mode == "F" or (image.mode == "I" and image.format != "PPM"):  # Pillow scales a PGM to 16 bits
        kind = "floating-point" if image.mode == "F" else "32-bit"
        raise ValueError(f"{kind} pixels have no known range: convert the image to 8 or 16 bits, unsigned")
    if image.mode.startswith("I"):
        image = Image.fromarray(_to_8_bits(np.asarray(image).astype(np.uint16), bits))
    if image.mode in ("P", "PA"):
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    if in_chans not in (1, 3):
        _check_bands(len(image.getbands()), in_chans)
        return np.asarray(image).transpose(2, 0, 1).copy()
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, WHITE), image)
    image = image.convert("RGB")
    pixels = np.array(image if in_chans == 3 else image.convert("L"))  # not every mode converts to grey directly
    return pixels[None] if in_chans == 1 else pixels.transpose(2, 0, 1).copy()


def _has_wide_colour(image: Image.Image) -> bool:
    """Whether an image that has not been loaded yet has 16 bits per colour."""
    return any(";16" in str(tile[3]) for tile in getattr(image, "tile", ())) and not image.mode.startswith("I")


class ImageHeader(NamedTuple):
    """What an image file says of itself before its pixels.

    Attributes:
        kind: of file, such as "JPEG".
        width: in pixels.
        height: in pixels.
        bands: 1 grey, 3 colour (also with transparency, a palette or CMYK), or the number of bands of a TIFF beyond.
    """

    kind: str
    width: int
    height: int
    bands: int


def read_image_header(encoded: Encoded, name: str) -> ImageHeader:
    """Reads the header of an image without decoding it; the orientation in it is not applied.

    Args:
        encoded: the image.
        name: of the image, for error messages.

    Raises:
        UnreadableImage: as `open_image`, where the header shows it.
    """
    try:
        if isinstance(encoded, Image.Image):
            return ImageHeader("array", *encoded.size, 1 if encoded.mode in GREY else 3)
        with _stream(encoded) as file:
            header = read_header(file)
            if header and header.beyond_pillow:
                return ImageHeader("TIFF", header.number(WIDTH, 0), header.number(HEIGHT, 0), header.bands)
            file.seek(0)
            with Image.open(file) as image:
                is_grey = image.mode in GREY or image.mode.startswith("I;16")
                return ImageHeader(str(image.format), *image.size, 1 if is_grey else 3)
    except Image.UnidentifiedImageError as error:
        raise UnreadableImage(f"{name}: not an image file") from error
    except UNREADABLE as error:
        raise UnreadableImage(f"{name}: {error or type(error).__name__}") from error


def brightest(encoded: Encoded) -> int | None:
    """The maximum value of a 16-bit image; None for any other image, or one that cannot be read."""
    try:
        if isinstance(encoded, Image.Image):
            return None
        with _stream(encoded) as file:
            header = read_header(file)
            if header and (header.beyond_pillow or header.wide_colour):
                return int(read_bands(file, header).max()) if header.bits == 16 else None
            file.seek(0)
            with Image.open(file) as image:
                if _has_wide_colour(image):
                    return 257 * int(np.asarray(image.convert("RGB")).max())
                return int(np.asarray(image).max()) if image.mode.startswith("I;16") else None
    except UNREADABLE:
        return None


def is_transparent(encoded: Encoded) -> bool:
    """Whether an image has transparent pixels; False for one that cannot be read."""
    try:
        if isinstance(encoded, Image.Image):
            return False
        with _stream(encoded) as file, Image.open(file) as image:
            return image.has_transparency_data and int(np.asarray(image.convert("RGBA"))[..., 3].min()) < 255
    except UNREADABLE:
        return False


def resize_and_crop(
    pixels: np.ndarray, size: int, interpolation: str = "bilinear", crop_ratio: float = 1.0
) -> np.ndarray:
    """Resizes the shorter side to `size / crop_ratio`, antialiased, and crops the centre.

    Args:
        pixels: (C, H, W) uint8.
        size: side of the result.
        interpolation: "bilinear", "bicubic" or another of Pillow's filters.
        crop_ratio: side of the crop as a fraction of the resized shorter side, at most 1.

    Returns:
        (C, size, size) uint8.
    """
    resized = max(size, int(size / crop_ratio))
    if pixels.shape[1:] == (size, size) == (resized, resized):
        return pixels
    shorter = min(pixels.shape[1:])
    height, width = (max(resized, round(side * resized / shorter)) for side in pixels.shape[1:])
    left, top = round((width - size) / 2), round((height - size) / 2)
    resampling = Image.Resampling[interpolation.upper()]
    bands = [Image.fromarray(band).resize((width, height), resampling) for band in pixels]
    return np.stack([np.asarray(band.crop((left, top, left + size, top + size))) for band in bands])
