"""Small pictures on disk, good and bad."""

import io
from pathlib import Path

import numpy as np
from PIL import Image


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
