"""TIFF files that Pillow cannot represent: any number of bands, of 8 or 16 bits."""

import zlib
from typing import BinaryIO, Literal, NamedTuple

import numpy as np
from PIL import TiffImagePlugin

WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, ORIENTATION, SAMPLES, PLANAR = 256, 257, 258, 259, 262, 274, 277, 284
STRIP_ROWS, STRIP_OFFSETS, STRIP_COUNTS, PREDICTOR = 278, 273, 279, 317
TILE_WIDTH, TILE_HEIGHT, TILE_OFFSETS, TILE_COUNTS, EXTRA, FORMAT = 322, 323, 324, 325, 338, 339
UNSIGNED, RGB = 1, 2
UNCOMPRESSED, DEFLATE, OLD_DEFLATE = 1, 8, 32946
ALPHA = (1, 2)
MAX_VALUES = 2**30
"""Values of an image at most: a damaged header must not ask for all memory."""


class Header(NamedTuple):
    """What the first page of a TIFF says of its values. tags: as the file has them; order: ">" or "<"."""

    tags: TiffImagePlugin.ImageFileDirectory_v2
    order: Literal["<", ">"]

    def number(self, tag: int, default: int) -> int:
        value = self.tags.get(tag, default)
        return int(value[0] if isinstance(value, tuple) else value)

    @property
    def bands(self) -> int:
        return self.number(SAMPLES, 1)

    @property
    def bits(self) -> int:
        return self.number(BITS, 1)

    @property
    def kind(self) -> str:
        """Of the values, in words."""
        names = {1: "unsigned", 2: "signed", 3: "floating-point"}
        return f"{self.bits}-bit {names.get(self.number(FORMAT, UNSIGNED), 'complex')}"

    @property
    def beyond_pillow(self) -> bool:
        """Whether Pillow refuses the file, or drops bands of it, or calls its values something else."""
        if self.number(PHOTOMETRIC, 1) not in (0, 1, RGB):  # palettes, CMYK, YCbCr, Lab
            return False
        if self.number(FORMAT, UNSIGNED) != UNSIGNED or self.bits > 16:
            return True
        extra = self.tags.get(EXTRA, ())
        colours = self.bands - (len(extra) == 1 and extra[0] in ALPHA)
        return self.bits >= 8 and colours != (3 if self.number(PHOTOMETRIC, 1) == RGB else 1)

    @property
    def wide_colour(self) -> bool:
        """Whether it is of 16 bits and several bands, of which Pillow keeps the upper 8 bits."""
        return self.bits == 16 and self.bands > 1


def read_header(file: BinaryIO) -> Header | None:
    """The header of a TIFF, None for any other file. Raises: what Pillow raises for a damaged one."""
    file.seek(0)
    head = file.read(8)
    if head[:4] not in (b"II*\0", b"MM\0*"):
        return None
    tags = TiffImagePlugin.ImageFileDirectory_v2(head)
    file.seek(tags.next)
    tags.load(file)
    return Header(tags, ">" if head[:1] == b"M" else "<")


def read_bands(file: BinaryIO, header: Header) -> np.ndarray:
    """The first page, upright: (H, W, bands) uint8 or uint16.

    Raises:
        ValueError: for values or a compression that cannot be read, in words; for a damaged file.
    """
    number = header.number
    if number(FORMAT, UNSIGNED) != UNSIGNED or header.bits not in (8, 16):
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
    """One strip or tile, (rows, columns, bands)."""
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
    """Undoes what the orientation tag says, 1 to 8."""
    if orientation in (5, 6, 7, 8):
        image = image.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    return image
