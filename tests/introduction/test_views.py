"""Hidden tiles are grey and the others as they were, and as many are hidden as the method says."""

import torch
from torch import Tensor

from ssl_zoo.introduction import views
from tests.introduction.test_figure import opened
from tests.methods import test_ijepa, test_mae, test_simmim

VIEW = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 0.5
SIDE = 8  # tiles of 2 x 2 pixels, as the ViTs of these tests have them


def hidden_tiles(picture: Tensor) -> Tensor:
    """(SIDE, SIDE) bool, True where a tile is grey; else it must be as it was."""
    tiles = picture.unfold(1, 2, 2).unfold(2, 2, 2)
    grey = (tiles == views.HIDDEN).all(dim=0).all(dim=-1).all(dim=-1)
    kept = (tiles == VIEW[0].unfold(1, 2, 2).unfold(2, 2, 2)).all(dim=0).all(dim=-1).all(dim=-1)
    assert torch.equal(grey, ~kept)
    return grey


def test_tiles_are_hidden_row_by_row() -> None:
    hidden = torch.arange(SIDE * SIDE) % 3 == 0
    assert torch.equal(hidden_tiles(views.hide(VIEW[0], hidden, (SIDE, SIDE))), hidden.view(SIDE, SIDE))
    assert views.marked(torch.tensor([[3, 1], [3, 0]]), 5).tolist() == [True, True, False, True, False]


def test_mae_hides_three_quarters() -> None:
    whole, masked = views.altered("mae", test_mae.make(), VIEW, VIEW[0])
    assert torch.equal(whole, VIEW[0])
    assert hidden_tiles(masked).sum() == 48


def test_simmim_hides_squares_of_four_tiles() -> None:
    _, masked = views.altered("simmim", test_simmim.make(), VIEW, VIEW[0])
    squares = hidden_tiles(masked).unfold(0, 2, 2).unfold(1, 2, 2).float().mean(dim=(2, 3))
    assert ((squares == 0) | (squares == 1)).all()
    assert squares.sum() == 10  # 0.6 of 16


def test_ijepa_sees_a_quarter_and_predicts_elsewhere() -> None:
    torch.manual_seed(0)
    _, context, targets = views.altered("ijepa", test_ijepa.make(), VIEW, VIEW[0])
    seen, predicted = ~hidden_tiles(context), ~hidden_tiles(targets)
    assert seen.sum() == 16
    assert predicted.any()
    assert not (seen & predicted).any()


def test_rotnet_turns_by_quarters() -> None:
    cells = views.altered("rotnet", None, VIEW, VIEW[0])
    assert len(cells) == 4
    assert torch.equal(cells[2], VIEW[0].flip(1, 2))
    assert torch.equal(cells[1].flip(1, 2), cells[3])


def test_other_methods_see_the_view_itself() -> None:
    (cell,) = views.altered("simclr", None, VIEW, VIEW[0])
    assert torch.equal(cell, VIEW[0])


def test_the_figure_grows_with_its_rows() -> None:
    one = views.Strip("one", [VIEW[0]])
    many = views.Strip("many", [torch.rand(1, 4 + n, 4 + n) for n in range(views.NUM_CELLS)])
    small, large = opened(views.draw_views([one])), opened(views.draw_views([one, many, one]))
    assert large.width == small.width
    assert large.height > 2 * small.height
