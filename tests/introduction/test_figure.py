"""A figure is a PNG of its width, in few colours."""

import io

import matplotlib
import numpy as np
from PIL import Image

from ssl_zoo.introduction import figure


def opened(content: bytes) -> Image.Image:
    picture = Image.open(io.BytesIO(content))
    assert picture.format == "PNG"
    return picture


def test_width_height_and_colours() -> None:
    before = dict(matplotlib.rcParams)
    content = figure.as_png(2.0, lambda drawn: drawn.subplots().bar([0], [1], color=figure.BLUE), dpi=50)
    picture = opened(content)
    assert picture.size == (round(50 * figure.INCHES_WIDE), 100)
    assert picture.mode == "P"  # a palette, of at most 256 colours
    colours = np.unique(np.asarray(picture.convert("RGB")).reshape(-1, 3), axis=0)
    assert (abs(colours.astype(int) - [0x00, 0x72, 0xB2]).max(axis=1) < 8).any()
    assert dict(matplotlib.rcParams) == before  # nobody else's figures change


def test_a_frame_is_drawn_in_its_colour() -> None:
    from matplotlib.figure import Figure

    axes = Figure().subplots()
    figure.without_ticks(axes)
    assert not any(spine.get_visible() for spine in axes.spines.values())
    figure.without_ticks(axes, figure.ORANGE)
    assert all(spine.get_visible() for spine in axes.spines.values())
    assert list(axes.get_xticks()) == []
