"""Hidden tokens: which views lose some, what the student knows of them, and no padding among them."""

from typing import Any

import torch
from torch import nn

from ssl_zoo.backbones.image import image_backbone
from ssl_zoo.backbones.text import TextTransformer
from ssl_zoo.nn.masks import BlockMask
from ssl_zoo.nn.token_masking import encode_views, mask_one_view

TINY: dict[str, Any] = {"depth": 2, "embed_dim": 16, "num_heads": 2, "mlp_ratio": 2}
N, NUM_MASKED = 16, 5  # tokens of a view; round(0.3 * 16) are masked
MASK = BlockMask(0.3)


def vit() -> nn.Module:
    backbone = image_backbone("vit_tiny_patch16_224", 3, 8, patch_size=2, global_pool="avg", fc_norm=False, **TINY)
    return backbone.eval()


def test_one_global_view_of_each_example_is_masked() -> None:
    x = torch.randn(64, 2, 3, 8, 8)
    masked = mask_one_view(x, vit(), MASK)
    per_view = masked.mask.view(64, 2, N).sum(2)
    assert torch.equal(per_view.sort(dim=1).values, torch.tensor([[0, NUM_MASKED]]).expand(64, 2))
    assert 16 < (per_view[:, 0] > 0).sum() < 48  # each view in its turn
    assert masked.valid.all()
    assert torch.equal(torch.zeros_like(masked.mask).scatter(1, masked.columns, True), masked.mask)


def test_the_student_knows_nothing_of_what_is_hidden_and_the_teacher_does() -> None:
    backbone, x = vit(), torch.randn(5, 2, 3, 8, 8)
    masked = mask_one_view(x, backbone, MASK)
    patch = masked.mask.view(5, 2, 4, 4).repeat_interleave(2, 2).repeat_interleave(2, 3).unsqueeze(2)
    other = torch.where(patch, torch.randn_like(x), x)
    for token, same in ((torch.randn(16), True), (None, False)):
        first, second = encode_views(backbone, x, masked, token), encode_views(backbone, other, masked, token)
        assert torch.allclose(first[0], second[0], atol=1e-5) == same
        assert torch.allclose(first[1], second[1], atol=1e-5) == same


def test_text_with_padding_hides_no_padding() -> None:
    ids = torch.randint(5, 30, (5, 2, N))
    ids[0, :, 3:] = 0
    masked = mask_one_view(ids, TextTransformer("eva02_tiny_patch14_224", 30, N, **TINY), MASK)
    assert not (masked.mask & (ids.flatten(1) == 0)).any()
    assert masked.valid.sum(1).tolist() == [1, *[NUM_MASKED] * 4]  # of three tokens, of sixteen
