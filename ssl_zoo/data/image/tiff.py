"""TIFF files that Pillow cannot represent: any number of bands, of 8 or 16 bits."""

import zlib
from typing import BinaryIO, Literal, NamedTuple

import numpy as np
from PIL import TiffImagePlugin

# Tags, by the names of the TIFF 6.0 specification in short.
WIDTH = 256
HEIGHT = 257
BITS = 258
COMPRESSION = 259
PHOTOMETRIC = 262
STRIP_OFFSETS = 273
ORIENTATION = 274
SAMPLES = 277
STRIP_ROWS = 278
STRIP_COUNTS = 279
PLANAR = 284
PREDICTOR = 317
TILE_WIDTH = 322
TILE_HEIGHT = 323
TILE_OFFSETS = 324
TILE_COUNTS = 325
EXTRA_SAMPLES = 338
SAMPLE_FORMAT = 339

# Values of tags.
UNSIGNED = 1
RGB = 2
UNCOMPRESSED = 1
DEFLATE = 8
OLD_DEFLATE = 32946
ALPHA = (1, 2)

MAX_VALUES = 2**30
"""Maximum number of values of an image: a damaged header must not exhaust the memory."""


class Header(NamedTuple):
    """The header of the first page of a TIFF.

    Attributes:
        tags: as in the file.
        order: byte order, ">" or "<".
    """

    tags: TiffImagePlugin.ImageFileDirectory_v2
    order: Literal["<", ">"]

    def number(self, tag: int, default: int) -> int:
        """The value of a tag, or its first value."""
        value = self.tags.get(tag, default)
        return int(value[0] if isinstance(value, tuple) else value)

    @property
    def bands(self) -> int:
        """Values per pixel."""
        return self.number(SAMPLES, 1)

    @property
    def bits(self) -> int:
        """Bits per value."""
        return self.number(BITS, 1)

    @property
    def kind(self) -> str:
        """The type of the values, such as "16-bit unsigned"."""
        names = {1: "unsigned", 2: "signed", 3: "floating-point"}
        return f"{self.bits}-bit {names.get(self.number(SAMPLE_FORMAT, UNSIGNED), 'complex')}"

    @property
    def beyond_pillow(self) -> bool:
        """Whether Pillow rejects the file, drops bands of it, or misinterprets its values."""
        if self.number(PHOTOMETRIC, 1) not in (0, 1, RGB):  # palettes, CMYK, YCbCr, Lab
            return False
        if self.number(SAMPLE_FORMAT, UNSIGNED) != UNSIGNED or self.bits > 16:
            return True
        extra = self.tags.get(EXTRA_SAMPLES, ())
        colours = self.bands - (len(extra) == 1 and extra[0] in ALPHA)
        return self.bits >= 8 and colours != (3 if self.number(PHOTOMETRIC, 1) == RGB else 1)

    @property
    def wide_colour(self) -> bool:
        """Whether it has 16 bits and several bands, of which Pillow keeps the upper 8 bits."""
        return self.bits == 16 and self.bands > 1


def read_header(file: BinaryIO) -> Header | None:
    """The header of a TIFF, None for any other file.

    Raises:
        Exception: whatever Pillow raises for a damaged file.
    """
    file.seek(0)
    head = file.read(8)
    if head[:4] not in (b"II*\0", b"MM\0*"):
        return None
    tags = TiffImagePlugin.ImageFileDirectory_v2(head)
    file.seek(tags.next)
    tags.load(file)
    return Header(tags, ">" if head[:1] == b"M" else "<")


def read_bands(file: BinaryIO, header: Header) -> np.ndarray:
    """Reads the first page, upright.

    Returns:
        (H, W, bands) uint8 or uint16.

    Raises:
        ValueError: for values or a compression that cannot be read, and for a damaged file.
    """
    number = header.number
    if number(SAMPLE_FORMAT, UNSIGNED) != UNSIGNED or header.bits not in (8, 16):
        raise ValueError(f"{header.kind} pixels have no known range: convert the image to 8 or 16 bits, unsigned")
    if number(COMPRESSION, 1) not in (UNCOMPRESSED, DEFLATE, OLD_DEFLATE):
        raise ValueError(
            f"a TIFF of {header.bands} bands of {header.bits} bits with compression {number(COMPRESSION, 1)}, which is "
            "not read for so many bands or bits: save it uncompressed or with deflate"
        )
    width, height, bands = number(WIDTH, 0), number(HEIGHT, 0), header.bands
    if not 0 < width * height * bands <= MAX_VALUES:
        raise ValueError(f"{width} x {height} x {bands} values: too large an image, or a damaged file")
    planes = bands if number(PLANAR, 1) == 2 else 1
    tiled = TILE_OFFSETS in header.tags
    across = number(TILE_WIDTH, width) if tiled else width
    down = number(TILE_HEIGHT, height) if tiled else min(number(STRIP_ROWS, height), height)
    offsets = header.tags[TILE_OFFSETS if tiled else STRIP_OFFSETS]
    counts = header.tags[TILE_COUNTS if tiled else STRIP_COUNTS]
    image = np.zeros((height, width, bands), np.uint8 if header.bits == 8 else np.uint16)
    places = [
        (plane, top, left)
        for plane in range(planes)
        for top in range(0, height, down)
        for left in range(0, width, across)
    ]
    for (plane, top, left), offset, count in zip(places, offsets, counts, strict=True):
        rows = down if tiled else min(down, height - top)
        block = _block(file, header, (rows, across, bands // planes), offset, count)
        where = slice(plane, plane + 1) if planes > 1 else slice(None)
        target = image[top : top + down, left : left + across, where]
        target[:] = block[: target.shape[0], : target.shape[1]]
    if number(PHOTOMETRIC, 1) == 0:  # white is zero
        image = np.iinfo(image.dtype).max - image
    return _upright(image, number(ORIENTATION, 1))


def _block(file: BinaryIO, header: Header, shape: tuple[int, int, int], offset: int, count: int) -> np.ndarray:
    """Reads one strip or tile of the given shape (rows, columns, bands)."""
    file.seek(offset)
    data = file.read(count)
    if header.number(COMPRESSION, 1) != UNCOMPRESSED:
        data = zlib.decompress(data)
    dtype = np.dtype(np.uint8 if header.bits == 8 else np.uint16).newbyteorder(header.order)
    values = int(np.prod(shape))
    if len(data) < values * dtype.itemsize:
        raise ValueError("the file is truncated")
    block = np.frombuffer(data, dtype, values).reshape(shape).astype(dtype.newbyteorder("="))
    if header.number(PREDICTOR, 1) == 2:  # each value is the difference from its left neighbour, modulo 2^bits
        block = np.cumsum(block, axis=1, dtype=block.dtype)
    elif header.number(PREDICTOR, 1) != 1:
        raise ValueError("a predictor for floating-point values: save it without")
    return block


def _upright(image: np.ndarray, orientation: int) -> np.ndarray:
    """Undoes the orientation tag, 1 to 8."""
    if orientation in (5, 6, 7, 8):
        image = image.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    return image
