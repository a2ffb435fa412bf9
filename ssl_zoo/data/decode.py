"""One encoded image of any common kind -> right pixels, or an error that names the image and says what is wrong."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

Encoded = bytes | Path | Image.Image
"""What a source gives for one example: the bytes of an image file, the path of one, or pixels."""

MODES = {1: "L", 3: "RGB"}
"""Pillow's name for what each number of channels holds."""
WHITE = (255, 255, 255, 255)
"""What shows through transparent pixels, as in a browser or a document."""

# What Pillow lets through for damaged files of one format or another.
DAMAGE = (OSError, SyntaxError, ValueError, EOFError, OverflowError, struct.error, zlib.error)


class UnreadableImage(ValueError):
    """An image that cannot be decoded rightly; the message names it and the cause."""


def open_image(encoded: Encoded, name: str, in_chans: int) -> Image.Image:
    """The image upright, in mode "RGB" or "L", of its own size.

    16-bit values are divided by 257, so that white stays white; transparency is laid on white; the orientation that a
    camera notes is applied; of an animation it is the first frame.

    encoded: the image, which errors call `name`. in_chans: 3 (colour) or 1 (grey, ITU-R 601 luma).

    Raises:
        UnreadableImage: not an image, truncated, damaged, too large (a decompression bomb) or of a kind whose range
            of values is not known: floating point, 32-bit integer.
    """
    try:
        if isinstance(encoded, Image.Image):
            image = encoded
        else:
            image = Image.open(io.BytesIO(encoded) if isinstance(encoded, bytes) else encoded)
        with image:
            ImageOps.exif_transpose(image, in_place=True)
            return _to_mode(image, MODES[in_chans])
    except Image.UnidentifiedImageError as error:
        raise UnreadableImage(f"{name}: not an image file") from error
    except Image.DecompressionBombError as error:
        raise UnreadableImage(f"{name}: {error}") from error
    except DAMAGE as error:
        raise UnreadableImage(f"{name}: {error or type(error).__name__}") from error


def _to_mode(image: Image.Image, mode: str) -> Image.Image:
    if image.mode == "F" or (image.mode == "I" and image.format != "PPM"):  # Pillow scales a PGM to 16 bits
        kind = "floating-point" if image.mode == "F" else "32-bit"
        raise ValueError(f"{kind} pixels have no known range: convert the image to 8 or 16 bits a channel")
    if image.mode.startswith("I"):
        return Image.fromarray((np.asarray(image, np.float32) / 257).round().astype(np.uint8)).convert(mode)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, WHITE), image)
    image = image.convert("RGB")
    return image if mode == "RGB" else image.convert(mode)  # not every mode has a direct way to grey


def to_array(image: Image.Image) -> np.ndarray:
    """(C, H, W) uint8 of an image in mode "RGB" or "L"."""
    pixels = np.array(image)
    return pixels[None] if pixels.ndim == 2 else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def resize_and_crop(image: Image.Image, size: int) -> Image.Image:
    """The central size x size of `image`, whose shorter side becomes `size` first (antialiased bilinear)."""
    if image.size == (size, size):
        return image
    width, height = (max(size, round(side * size / min(image.size))) for side in image.size)
    image = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = round((width - size) / 2), round((height - size) / 2)
    return image.crop((left, top, left + size, top + size))
