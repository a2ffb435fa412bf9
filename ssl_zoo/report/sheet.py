"""The sheet of neighbours: one row per query, with its most similar pictures beside it."""

import io
from collections.abc import Sequence
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont

from ssl_zoo.report.display import to_plain_text

SHEET_NAME = "neighbours.png"
NUM_QUERIES = 8
"""Rows of a sheet that nobody gave a query for."""
SIDE = 112  # of a picture, in pixels
GAP = 10
LINE = 15  # height of a line of text
SAME = "#1a7f37"
OTHER = "#bc4c00"
NEUTRAL = "#59636e"
INK = "#1f2328"


class Picture(NamedTuple):
    """One picture of a sheet.

    Attributes:
        image: at most `SIDE` pixels wide and high.
        name: first line below it.
        note: second line below it.
        matches: whether its label is that of the query; None where one of them is unknown.
    """

    image: Image.Image
    name: str
    note: str
    matches: bool | None = None


def draw_sheet(rows: Sequence[Sequence[Picture]], title: str) -> bytes:
    """Draws the pictures in rows, the first of each apart from the others.

    Args:
        rows: a query and its neighbours each.
        title: a line above.

    Returns:
        The content of a PNG file.
    """
    font, bold = ImageFont.load_default(12), ImageFont.load_default(15)
    columns = max(map(len, rows))
    height = SIDE + 2 * LINE + GAP
    top = 3 * GAP + 2 * LINE
    width = max(columns * (SIDE + GAP) + 4 * GAP, 420)
    sheet = Image.new("RGB", (width, top + len(rows) * height + GAP), "white")
    draw = ImageDraw.Draw(sheet)
    draw.text((GAP, GAP), _fit(draw, to_plain_text(title), bold, sheet.width - 2 * GAP), INK, bold)
    draw.text((GAP, top - LINE - 4), "query", NEUTRAL, font)
    draw.text((SIDE + 4 * GAP, top - LINE - 4), "nearest neighbours, with their cosine", NEUTRAL, font)
    for row, pictures in enumerate(rows):
        for column, picture in enumerate(pictures):
            left = GAP + column * (SIDE + GAP) + (2 * GAP if column else 0)
            _draw_picture(sheet, draw, picture, left, top + row * height, font)
    draw.line([(SIDE + 2.5 * GAP, top), (SIDE + 2.5 * GAP, sheet.height - 2 * GAP)], "#d1d9e0", 1)
    content = io.BytesIO()
    sheet.save(content, "PNG", optimize=True)
    return content.getvalue()


def _draw_picture(
    sheet: Image.Image,
    draw: ImageDraw.ImageDraw,
    picture: Picture,
    left: int,
    top: int,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
) -> None:
    image = picture.image
    draw.rectangle([left, top, left + SIDE - 1, top + SIDE - 1], "#f6f8fa")
    sheet.paste(image, (left + (SIDE - image.width) // 2, top + (SIDE - image.height) // 2))
    colour = NEUTRAL if picture.matches is None else SAME if picture.matches else OTHER
    if picture.matches is not None:
        draw.rectangle([left, top + SIDE - 3, left + SIDE - 1, top + SIDE - 1], colour)
    for line, (text, ink) in enumerate(((picture.name, INK), (picture.note, colour))):
        draw.text((left, top + SIDE + 2 + line * LINE), _fit(draw, to_plain_text(text), font, SIDE), ink, font)


def _fit(draw: ImageDraw.ImageDraw, text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    """The text, with its middle left out where it is too long."""
    text = text[:200]
    if draw.textlength(text, font) <= width:
        return text
    for kept in range(len(text) - 1, 1, -1):
        shorter = f"{text[: kept // 2]}...{text[len(text) - (kept + 1) // 2 :]}"
        if draw.textlength(shorter, font) <= width:
            return shorter
    return ""
