"""Masks: the same share of each row's own tokens, never at padding, blocks that are rectangles."""

import pytest
import torch

from ssl_zoo.distributed import rank, world_size
from ssl_zoo.nn import masks
from tests import distributed

ALL = torch.ones(50, 64, dtype=torch.bool)


RATIOS = [0.01, 0.15, 0.3, 0.35, 0.5, 0.75, 0.99]


def lengths(*n: int, width: int) -> torch.Tensor:
    """(len(n), width) bool, rows of n tokens and padding."""
    return torch.arange(width) < torch.tensor(n)[:, None]


@pytest.mark.parametrize("ratio", RATIOS)
def test_counts_are_shares_of_each_rows_own_tokens(ratio: float) -> None:
    counts = masks.mask_counts(ratio, lengths(*range(201), width=200)).tolist()
    for n, k in enumerate(counts):
        assert k == (min(max(round(ratio * n), 1), n - 1) if n >= 2 else 0)
        assert k == masks.num_masked(ratio, n)
    left = [n - k for n, k in enumerate(counts)]
    assert counts == sorted(counts)  # so that the longest row's count suffices for all,
    assert left == sorted(left)  # and so does its number of unmasked tokens


@pytest.mark.parametrize("maker", [masks.RandomMask, masks.BlockMask])
@pytest.mark.parametrize("ratio", RATIOS)
def test_padding_changes_no_share_and_is_never_masked(maker: type[masks.RandomMask], ratio: float) -> None:
    n = (0, 1, 2, 3, 7, 20)
    for width in (20, 21, 64):
        eligible = lengths(*n, width=width)
        mask = maker(ratio)(eligible, (1, width))
        assert mask.sum(1).tolist() == [masks.num_masked(ratio, length) for length in n]
        assert not (mask & ~eligible).any()


def test_blocks_of_a_short_row_are_shares_of_its_own_tokens() -> None:
    columns = torch.tensor([40, 10, 2, 1])
    torch.manual_seed(0)
    blocks = masks.rectangles(torch.rand(4, 200, 4), (1, 40), columns, block_ratio=0.3, min_aspect=0.3)
    for each, n, (low, high) in zip(blocks, columns, [(3, 12), (1, 3), (1, 1), (1, 1)], strict=True):
        assert not each[:, n:].any()
        assert each[:, :n].any(0).all()  # every token has its turn
        assert (int(each.sum(1).min()), int(each.sum(1).max())) == (low, high)


def test_what_a_mask_leaves_is_kept_in_order_and_masked_tokens_never_are() -> None:
    eligible = lengths(0, 1, 2, 5, 12, width=12)
    for ratio in RATIOS:
        mask = masks.RandomMask(ratio)(eligible, (1, 12))
        columns = masks.unmasked(mask, eligible, ratio)
        for row, masked, own in zip(columns, mask, eligible, strict=True):
            kept = (own & ~masked).nonzero().flatten().tolist()
            assert row[: len(kept)].tolist() == kept
            assert not own[row[len(kept) :]].any()
            assert len(set(row.tolist())) == len(row)
        assert columns.shape[1] == 12 - masks.num_masked(ratio, 12)


def test_target_blocks_are_rectangles_inside_the_grid() -> None:
    corners = torch.rand(30, 3, 2)
    corners[0, 0] = 1 - 2**-24
    blocks, inside = masks.target_blocks(corners, (5, 7), torch.full((30,), 7), height=2, width=3.2)
    assert blocks.shape == (30, 3, 6)
    assert inside.all()
    for draws, rows in zip(corners, blocks, strict=True):
        for (v, u), block in zip(draws.tolist(), rows.tolist(), strict=True):
            top, left = int(v * 4), int(u * 5)
            assert block == [7 * (top + y) + left + x for y in range(2) for x in range(3)]
            assert max(block) < 35
    many, _ = masks.target_blocks(torch.rand(1000, 3, 2), (5, 7), torch.full((1000,), 7), height=2, width=3)
    assert set(many[..., 0].flatten().tolist()) == {7 * y + x for y in range(4) for x in range(5)}


def test_target_blocks_of_a_text_are_shares_of_its_own_tokens() -> None:
    n, width = torch.tensor([40, 20, 3, 1, 0]), 6.4
    blocks, inside = masks.target_blocks(torch.rand(5, 500, 2), (1, 40), n, 1, width)
    assert blocks.shape == inside.shape == (5, 500, 6)
    assert inside[:, 0].sum(1).tolist() == [6, 3, 1, 1, 1]  # round(6.4 * n / 40), at least one
    for row, valid, length in zip(blocks[:4], inside, n, strict=False):
        spans = row[valid].view(500, -1)
        assert (spans.diff(dim=1) == 1).all()
        assert set(spans.flatten().tolist()) == set(range(length))
        assert row.max() < length


def test_a_mask_token_is_small_and_not_zero() -> None:
    token = masks.mask_token(4096)
    assert token.std().item() == pytest.approx(0.02, rel=0.05)
    assert token.requires_grad


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
    blocks = masks.rectangles(torch.rand(20, 8, 4), (14, 14), torch.full((20,), 14), 0.2, min_aspect=0.5).view(
        -1, 14, 14
    )
    for block in blocks:
        rows, columns = block.any(1).sum(), block.any(0).sum()
        assert int(block.sum()) == rows * columns  # a full rectangle
    areas = blocks.flatten(1).sum(1)
    assert 5 <= int(areas.min()) <= int(areas.max()) <= 50  # 9.8 to 39.2, sides rounded


def test_on_one_row_blocks_are_spans() -> None:
    torch.manual_seed(0)
    blocks = masks.rectangles(torch.rand(20, 8, 4), (1, 40), torch.full((20,), 40), 0.25, min_aspect=0.3).flatten(0, 1)
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
