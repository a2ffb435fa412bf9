"""Two overlapping clouds of dots and a line between them, found by adjusting it again and again.

Logistic regression by gradient descent: Bishop, "Pattern Recognition and Machine Learning", 2006, Section 4.3.2.
Letters: N dots, T steps.
"""

import logging
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_zoo.introduction.figure import BLACK, BLUE, MUTED, ORANGE, as_png

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

log = logging.getLogger(__name__)

CENTRES = ((-1.0, -0.6), (1.0, 0.6))
DOTS_PER_CLOUD = 100
FIRST_LINE = (-0.6, 1.2, 0.8)
"""The line to begin with, 0.6 x = 1.2 y + 0.8, which runs through both clouds."""
NUM_STEPS = 60
STEP_SIZE = 0.3
SHOWN_STEPS = (0, 10, NUM_STEPS)
"""The numbers of the steps of which the line is drawn."""


class Clouds(NamedTuple):
    """Dots of two colours.

    Attributes:
        x: (N, 2) float32, where they are.
        y: (N,) int64, their colours: 0 orange, 1 blue.
    """

    x: Tensor
    y: Tensor


def make_clouds(random: torch.Generator) -> Clouds:
    """Draws `DOTS_PER_CLOUD` dots around each of the two `CENTRES`, normal with standard deviation 1."""
    y = torch.arange(2).repeat_interleave(DOTS_PER_CLOUD)
    return Clouds(torch.tensor(CENTRES)[y] + torch.randn(len(y), 2, generator=random), y)


def sides(x: Tensor, line: Tensor) -> Tensor:
    """How far each of the dots (N, 2) is on the blue side of the line (a, b, c): a x + b y + c, (N,)."""
    return x @ line[:2] + line[2]


def count_errors(clouds: Clouds, line: Tensor) -> int:
    """Number of dots on the side of the other colour."""
    return int(((sides(clouds.x, line) > 0).long() != clouds.y).sum())


def adjust(clouds: Clouds) -> Tensor:
    """Turns and moves the line downhill on the mean logistic loss.

    Returns:
        (T + 1, 3), the line before the first step and after each.
    """
    line = torch.tensor(FIRST_LINE, requires_grad=True)
    lines = [line.detach().clone()]
    for _ in range(NUM_STEPS):
        loss = F.binary_cross_entropy_with_logits(sides(clouds.x, line), clouds.y.float())
        (slope,) = torch.autograd.grad(loss, line)
        with torch.no_grad():
            line -= STEP_SIZE * slope
        lines.append(line.detach().clone())
    return torch.stack(lines)


def draw_dots(seed: int) -> bytes:
    """The line at the start, on the way and at the end, and below it the errors after each step.

    Args:
        seed: of the dots.

    Returns:
        The content of a PNG file.
    """
    random = torch.Generator().manual_seed(seed)
    seen, fresh = make_clouds(random), make_clouds(random)
    lines = adjust(seen)
    errors, others = ([count_errors(clouds, line) for line in lines] for clouds in (seen, fresh))
    said = "step %d: %d of %d dots on the wrong side, of as many new ones %d"
    for step in SHOWN_STEPS:
        log.info(said, step, errors[step], len(seen.y), others[step])
    return as_png(5.0, partial(_plot, seen=seen, lines=lines, errors=errors, others=others))


def _plot(figure: "Figure", seen: Clouds, lines: Tensor, errors: list[int], others: list[int]) -> None:
    grid = figure.add_gridspec(2, len(SHOWN_STEPS), height_ratios=(1, 1.35))
    for column, (step, title) in enumerate(zip(SHOWN_STEPS, ("at the start", "on the way", "at the end"), strict=True)):
        axes = figure.add_subplot(grid[0, column])
        _plot_clouds(axes, seen, lines[step])
        axes.set_title(f"{title}:\n{errors[step]} of {len(seen.y)} wrong")
    axes = figure.add_subplot(grid[1, :])
    steps = range(len(errors))
    axes.plot(steps, errors, color=BLACK, linewidth=2, label="the dots it is adjusted to")
    axes.plot(steps, others, color=MUTED, linewidth=2, linestyle="--", label="new dots of the same clouds")
    axes.plot(SHOWN_STEPS, [errors[step] for step in SHOWN_STEPS], "o", color=BLACK, clip_on=False)
    axes.set(xlabel="times that the line has been adjusted", ylabel="dots on the wrong side", xlim=(0, steps[-1]))
    axes.set_ylim(bottom=0)
    axes.legend()


def _plot_clouds(axes: "Axes", clouds: Clouds, line: Tensor) -> None:
    wrong = (sides(clouds.x, line) > 0).long() != clouds.y
    for colour, (marker, paint) in enumerate((("^", ORANGE), ("o", BLUE))):
        for members, size, edge in ((~wrong, 9, "none"), (wrong, 16, BLACK)):
            points = clouds.x[members & (clouds.y == colour)]
            axes.scatter(
                points[:, 0], points[:, 1], s=size, marker=marker, color=paint, edgecolors=edge, linewidths=0.9
            )
    a, b, c = line.tolist()
    foot, direction = torch.tensor([-a * c, -b * c]) / (a * a + b * b), torch.tensor([-b, a])
    axes.axline(foot.tolist(), (foot + direction).tolist(), color=BLACK, linewidth=2)
    axes.set(xlim=(-4, 4), ylim=(-4, 4), aspect="equal", xticks=[], yticks=[])
    axes.spines[:].set_visible(True)
