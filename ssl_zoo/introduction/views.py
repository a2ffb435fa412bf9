"""One picture as methods see it: cropped, recoloured, turned, or with a part of it hidden.

Letters: C channels, H W view, N tiles that a view is cut into.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from ssl_zoo.backbones import tokens
from ssl_zoo.introduction.figure import as_png, without_ticks

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NUM_CELLS = 6
HIDDEN = 0.75
"""The grey of hidden tiles."""


class Strip(NamedTuple):
    """One row of the figure.

    Attributes:
        title: above it.
        cells: up to `NUM_CELLS` pictures, (C, H, W) in [0, 1].
    """

    title: str
    cells: Sequence[Tensor]


def hide(view: Tensor, hidden: Tensor, grid: tuple[int, int]) -> Tensor:
    """Paints tiles of a view grey.

    Args:
        view: (C, H, W).
        hidden: (N,) bool, the tiles, row by row.
        grid: rows and columns of the N tiles, which divide H and W.
    """
    pixels = hidden.view(grid).repeat_interleave(view.shape[1] // grid[0], 0)
    return view.masked_fill(pixels.repeat_interleave(view.shape[2] // grid[1], 1), HIDDEN)


def marked(numbers: Tensor, count: int) -> Tensor:
    """(count,) bool, True at these numbers."""
    return torch.zeros(count, dtype=torch.bool).scatter(0, numbers.flatten(), True)


def _mae(method: Any, view: Tensor, count: int) -> list[Tensor]:
    return [marked(method.divide(view)[0], count)]


def _simmim(method: Any, view: Tensor, count: int) -> list[Tensor]:
    return [method.sample_mask(view)[0]]


def _ijepa(method: Any, view: Tensor, count: int) -> list[Tensor]:
    division = method.divide(view)
    return [~marked(division.context, count), ~marked(division.blocks, count)]


HIDES: dict[str, Callable[[Any, Tensor, int], list[Tensor]]] = {"mae": _mae, "simmim": _simmim, "ijepa": _ijepa}
"""For each method that hides tiles: which are hidden, (N,) bool, in each further picture of a view (1, C, H, W)."""


def altered(name: str, method: Any, view: Tensor, shown: Tensor) -> list[Tensor]:
    """A view, and what a method makes of it before its network sees it.

    Args:
        name: of the method.
        method: the method itself; only those in `HIDES` are asked.
        view: (1, C, H, W), as the method gets it.
        shown: (C, H, W), the same in [0, 1].
    """
    if name == "rotnet":
        return [torch.rot90(shown, quarters, (1, 2)) for quarters in range(4)]
    if name not in HIDES:
        return [shown]
    grid = tokens.grid(method.backbone, view)
    return [shown, *(hide(shown, hidden, grid) for hidden in HIDES[name](method, view, grid[0] * grid[1]))]


def draw_views(rows: Sequence[Strip]) -> bytes:
    """Draws all rows below one another.

    Returns:
        The content of a PNG file.
    """
    return as_png(1.04 * len(rows), partial(_plot, rows=rows), dpi=100)


def _plot(figure: "Figure", rows: Sequence[Strip]) -> None:
    for part, row in zip(figure.subfigures(len(rows), 1, squeeze=False)[:, 0], rows, strict=True):
        part.suptitle(row.title, fontsize=10, x=0.01, ha="left")
        largest = max(cell.shape[1] for cell in row.cells)
        for axes, cell in zip(part.subplots(1, NUM_CELLS), row.cells, strict=False):
            smooth = "antialiased" if cell.shape[1] > 16 else "nearest"
            axes.imshow(cell.permute(1, 2, 0).expand(-1, -1, 3).numpy(), vmin=0, vmax=1, interpolation=smooth)
            border = (largest - cell.shape[1]) / 2  # small views are shown small
            axes.set(
                xlim=(-0.5 - border, cell.shape[2] - 0.5 + border), ylim=(cell.shape[1] - 0.5 + border, -0.5 - border)
            )
            without_ticks(axes)
        for axes in part.axes[len(row.cells) :]:
            axes.set_visible(False)
