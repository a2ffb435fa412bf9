"""The page of a map: one HTML file with points, names and small pictures or texts in it, and no request to anywhere."""

import base64
import io
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from ssl_zoo.report.display import to_plain_text

TEMPLATE = Path(__file__).with_name("map.html")
PIXELS = 32_000_000
"""Of all small pictures together, which bounds the size of the page to some 25 MB."""
PICTURE_SIDES = (16, 96)
"""Smallest and largest side of a small picture."""
SHEET_SIDE = 2048
LETTERS = 12_000_000
"""Of all texts together."""
LONGEST = 400
"""Letters of a text that are shown."""
TOP = 65535
"""Points are kept as whole numbers from 0 to this."""
NO_LABEL = "no label"


class Colouring(NamedTuple):
    """One way to colour the points.

    Attributes:
        name: what the colours mean, such as "label".
        values: (N,) int64, positions in `classes`.
        classes: entries of the legend.
        unknown: whether the last class stands for examples of which it is not known.
    """

    name: str
    values: np.ndarray
    classes: list[str]
    unknown: bool = False


class SmallPictures(NamedTuple):
    """Pictures of all points as squares in a few sheets, row by row.

    Attributes:
        side: of a square, in pixels.
        columns: squares per row of a sheet.
        each: squares per sheet.
        sheets: JPEG files.
    """

    side: int
    columns: int
    each: int
    sheets: list[bytes]


def colour_by(name: str, labels: Sequence[str | None]) -> Colouring:
    """Colours by label, in alphabetical order, with numbers by their value."""
    classes = sorted({label for label in labels if label is not None}, key=_by_value)
    place: dict[str | None, int] = {label: i for i, label in enumerate(classes)}
    values = np.array([place.get(label, len(classes)) for label in labels])
    unknown = None in labels
    return Colouring(name, values, [*classes, *([NO_LABEL] * unknown)], unknown)


def _by_value(label: str) -> list[tuple[int, int, str]]:
    """Sorts "class 10" after "class 2"."""
    parts = re.split(r"([0-9]+)", label.lower())
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts if part]


def picture_side(count: int) -> int:
    """Side of the small pictures of `count` points."""
    return int(np.clip((PIXELS / count) ** 0.5, *PICTURE_SIDES))


def pack_pictures(images: Sequence[Image.Image]) -> SmallPictures:
    """Packs square pictures, as wide as `picture_side` says, into sheets."""
    count, side = len(images), images[0].width
    columns = min(SHEET_SIDE // side, count)
    each = columns * (SHEET_SIDE // side)
    sheets = []
    for start in range(0, count, each):
        inside = min(each, count - start)
        sheet = Image.new("RGB", (columns * side, -(-inside // columns) * side), "white")
        for place in range(inside):
            sheet.paste(images[start + place], (place % columns * side, place // columns * side))
        content = io.BytesIO()
        sheet.save(content, "JPEG", quality=82)
        sheets.append(content.getvalue())
    return SmallPictures(side, columns, each, sheets)


def shorten_texts(texts: Sequence[str]) -> list[str]:
    """The beginnings of the texts, in one line each."""
    longest = min(LONGEST, LETTERS // max(1, len(texts)))
    plain = (to_plain_text(text[: 4 * longest]) for text in texts)
    return [text if len(text) <= longest else f"{text[:longest].rstrip()} ..." for text in plain]


def map_page(
    title: str,
    about: str,
    xy: np.ndarray,
    names: Sequence[str],
    colourings: Sequence[Colouring],
    pictures: SmallPictures | None = None,
    texts: Sequence[str] | None = None,
) -> str:
    """The page.

    Args:
        title: its heading.
        about: a line below.
        xy: (N, 2) places of the points, of any range.
        names: of the N examples.
        colourings: the first is shown first.
        pictures: of the examples.
        texts: of the examples.
    """
    low, high = xy.min(axis=0), xy.max(axis=0)
    span = max(float((high - low).max()), 1e-12)
    places = np.round((xy - (low + high) / 2) / span * TOP + TOP / 2).clip(0, TOP)
    data: dict[str, Any] = {
        "title": to_plain_text(title),
        "about": to_plain_text(about),
        "xy": _encode(places),
        "names": to_plain_text(list(names)),
        "colourings": [
            {**one._asdict(), "values": _encode(one.values), "classes": to_plain_text(one.classes)}
            for one in colourings
        ],
        "pictures": pictures
        and pictures._asdict() | {"sheets": [base64.b64encode(s).decode() for s in pictures.sheets]},
        "texts": texts and list(texts),
    }
    # In a script element only "<" could end it, and JSON may write any letter as an escape.
    content = json.dumps(data, ensure_ascii=False).replace("<", "\\u003c")
    return TEMPLATE.read_text(encoding="utf-8").replace("__DATA__", content)


def _encode(numbers: np.ndarray) -> str:
    return base64.b64encode(numbers.astype("<u2").tobytes()).decode()
