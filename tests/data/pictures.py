"""Small pictures on disk, good and bad."""

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SETTINGS: dict[str, Any] = {
    "splits": {"train": ["train"], "test": "auto"},
    "image_size": 8,
    "in_chans": 3,
    "mean": [0.5] * 3,
    "std": [0.2] * 3,
    "batch_size": 2,
}
"""Of a data module for images of 8 pixels in folders; a test changes what it is about."""


def picture(seed: int, width: int = 8, height: int = 8) -> Image.Image:
    """Smooth, so that JPEG keeps it nearly as it is."""
    corners = np.random.default_rng(seed).integers(0, 256, (2, 2, 3), dtype=np.uint8)
    return Image.fromarray(corners).resize((width, height), Image.Resampling.BILINEAR)


def encode(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def write(folder: Path, count: int, ending: str = "png", first: int = 0, side: int = 8) -> list[Path]:
    """`count` pictures 0000.png ... in `folder`, seeded with their number."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{i:04d}.{ending}" for i in range(first, first + count)]
    for i, path in enumerate(paths, start=first):
        picture(i, side, side).save(path)
    return paths


def tiff(pixels: np.ndarray, order: str = "<", deflate: bool = False, planar: bool = False, **extra: tuple) -> bytes:
    """A TIFF of any number of bands, (H, W, n) uint8 or uint16, in strips of three rows; extra: tags by number."""
    height, width, bands = pixels.shape
    planes = [pixels[..., k : k + 1] for k in range(bands)] if planar else [pixels]
    strips = [plane[top : top + 3] for plane in planes for top in range(0, height, 3)]
    data = [strip.astype(strip.dtype.newbyteorder(order)).tobytes() for strip in strips]
    data = [zlib.compress(part) for part in data] if deflate else data
    offsets = [8 + sum(map(len, data[:i])) for i in range(len(data))]
    short, long = 3, 4
    tags: dict[int, tuple[int, list[int]]] = {
        256: (short, [width]), 257: (short, [height]), 258: (short, [pixels.itemsize * 8] * bands),
        259: (short, [8 if deflate else 1]), 262: (short, [1]), 273: (long, offsets), 277: (short, [bands]),
        278: (short, [3]), 279: (long, list(map(len, data))), 284: (short, [2 if planar else 1]),
    }  # fmt: skip
    tags |= {int(name[1:]): (short, list(values)) for name, values in extra.items()}
    body = b"".join(data)
    start = 8 + len(body)
    entries, tail = b"", b""
    for tag, (kind, values) in sorted(tags.items()):
        packed = struct.pack(f"{order}{len(values)}{'H' if kind == short else 'I'}", *values)
        if len(packed) > 4:
            place = struct.pack(f"{order}I", start + 2 + 12 * len(tags) + 4 + len(tail))
            tail += packed
        else:
            place = packed.ljust(4, b"\0")
        entries += struct.pack(f"{order}HHI", tag, kind, len(values)) + place
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", start)
    return head + body + struct.pack(f"{order}H", len(tags)) + entries + bytes(4) + tail
