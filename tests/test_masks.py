"""Masks: the same number in each row, never at padding, blocks that are rectangles."""

import pytest
import torch

from ssl_zoo import masks
from ssl_zoo.functional import rank, world_size
from tests import distributed

ALL = torch.ones(50, 64, dtype=torch.bool)


@pytest.mark.parametrize("maker", [masks.RandomMask(0.4), masks.BlockMask(0.4)])
def test_every_row_hides_equally_many_and_no_padding(maker: masks.RandomMask) -> None:
    eligible = ALL.clone()
    eligible[:, 50:] = False
    mask = maker(eligible, (8, 8))
    assert mask.sum(1).tolist() == [26] * 50
    assert not mask[:, 50:].any()


def test_random_mask_is_uniform() -> None:
    torch.manual_seed(0)
    share = torch.stack([masks.RandomMask(0.25)(ALL, (8, 8)) for _ in range(40)]).float().mean((0, 1))
    assert (share - 0.25).abs().max() < 0.05  # 2,000 rows: five standard deviations


def test_blocks_are_contiguous() -> None:
    torch.manual_seed(0)
    random, block = (maker(ALL, (8, 8)).view(50, 8, 8) for maker in (masks.RandomMask(0.3), masks.BlockMask(0.3)))

    def alike(mask: torch.Tensor) -> float:
        return float((mask[:, 1:] == mask[:, :-1]).float().mean())

    assert alike(block) > alike(random) + 0.15


def test_rectangles_have_the_wanted_area_and_lie_inside() -> None:
    torch.manual_seed(0)
    blocks = masks.rectangles(torch.rand(20, 8, 4), (14, 14), block_ratio=0.2, min_aspect=0.5).view(-1, 14, 14)
    for block in blocks:
        rows, columns = block.any(1).sum(), block.any(0).sum()
        assert int(block.sum()) == rows * columns  # a full rectangle
    areas = blocks.flatten(1).sum(1)
    assert 5 <= int(areas.min()) <= int(areas.max()) <= 50  # 9.8 to 39.2, sides rounded


def test_on_one_row_blocks_are_spans() -> None:
    torch.manual_seed(0)
    blocks = masks.rectangles(torch.rand(20, 8, 4), (1, 40), block_ratio=0.25, min_aspect=0.3).flatten(0, 1)
    starts = blocks.int().diff(dim=1, prepend=torch.zeros(160, 1, dtype=torch.int32)) == 1
    assert starts.sum(1).tolist() == [1] * 160
    assert 2 <= int(blocks.sum(1).min()) <= int(blocks.sum(1).max()) <= 10


def draw() -> torch.Tensor:
    torch.manual_seed(10 + rank())  # as the learner seeds each process: differently
    mine = ALL[: 8 // world_size()]
    return torch.cat([masks.RandomMask(0.4)(mine, (8, 8)), masks.BlockMask(0.4)(mine, (8, 8))])


def test_two_processes_hide_what_one_hides() -> None:
    one = draw().view(2, 2, 4, 64)
    first, second = (part.view(2, 4, 64) for part in distributed.run(2, draw))
    assert torch.equal(torch.stack([first, second], dim=1), one)


@pytest.mark.parametrize("ratio", [0, 1, 1.5, -0.1])
def test_a_ratio_outside_0_1_is_refused(ratio: float) -> None:
    with pytest.raises(ValueError, match=f"method.mask_ratio={ratio}"):
        masks.RandomMask(ratio)
