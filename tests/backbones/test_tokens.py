"""Tokens of a ViT and of a text encoder: the same numbers as the backbone's own forward, at their own positions."""

import pytest
import timm
import torch
from torch import Tensor, nn

from ssl_zoo.backbones import tokens
from ssl_zoo.backbones.image import image_backbone
from ssl_zoo.backbones.text import TextTransformer

SMALL = {"depth": 2, "embed_dim": 32, "num_heads": 2}


def vit(**kwargs: object) -> nn.Module:
    torch.manual_seed(0)
    return image_backbone("vit_tiny_patch16_224", 3, 16, **SMALL, **kwargs).eval()  # type: ignore[arg-type]


def text(**kwargs: object) -> nn.Module:
    torch.manual_seed(0)
    return TextTransformer("eva02_tiny_patch14_224", 50, 24, **SMALL, **kwargs).eval()  # type: ignore[arg-type]


IMAGES = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
IDS = torch.randint(4, 50, (3, 12), generator=torch.Generator().manual_seed(0))
CASES = [(vit, IMAGES), (lambda: vit(global_pool="avg", fc_norm=False), IMAGES), (text, IDS)]


@pytest.mark.parametrize(("make", "view"), CASES)
def test_encode_is_the_forward_pass(make: type, view: Tensor) -> None:
    backbone = make()
    out = tokens.encode(backbone, view)
    torch.testing.assert_close(out.pooled, backbone(view))
    again = tokens.encode(backbone, view, embeddings=tokens.embed(backbone, view))
    torch.testing.assert_close(again.tokens, out.tokens)
    torch.testing.assert_close(backbone.norm(out.layers[-1]), out.tokens)
    rows, columns = tokens.grid(backbone, view)
    assert out.tokens.shape[:2] == tokens.eligible(backbone, view).shape == (3, rows * columns)


@pytest.mark.parametrize(("make", "view"), CASES)
def test_keeping_all_tokens_in_any_order_changes_nothing(make: type, view: Tensor) -> None:
    backbone = make()
    out = tokens.encode(backbone, view)
    order = torch.stack([torch.randperm(out.tokens.shape[1]) for _ in range(3)])
    shuffled = tokens.encode(backbone, view, keep=order)
    torch.testing.assert_close(shuffled.tokens, tokens.take(out.tokens, order), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("make", "view"), CASES)
def test_tokens_left_out_have_no_influence(make: type, view: Tensor) -> None:
    backbone = make()
    x = tokens.embed(backbone, view).detach()
    keep = torch.tensor([[0, 2, 5]] * 3)
    noise = 100 * torch.randn_like(x)
    noise[:, [0, 2, 5]] = 0
    clean = tokens.encode(backbone, view, x, keep).tokens
    assert torch.equal(clean, tokens.encode(backbone, view, x + noise, keep).tokens)


def test_documents_stay_isolated_among_kept_tokens() -> None:
    backbone = text(isolate_documents=True)
    ids = IDS.clone()
    ids[:, 5] = 3  # a separator
    keep = torch.tensor([[1, 4, 7, 9]] * 3)
    x = tokens.embed(backbone, ids).detach()
    noise = torch.zeros_like(x)
    noise[:, 7:] = 5 * torch.randn_like(noise[:, 7:])
    clean, dirty = (tokens.encode(backbone, ids, v, keep).tokens for v in (x, x + noise))
    assert torch.equal(clean[:, :2], dirty[:, :2])
    assert not torch.allclose(clean[:, 2:], dirty[:, 2:])


def test_views_of_several_sizes() -> None:
    backbone = vit()
    assert tokens.grid(backbone, IMAGES) == (8, 8)
    small = IMAGES[:, :, :8, :8]
    assert tokens.grid(backbone, small) == (4, 4)
    torch.testing.assert_close(tokens.encode(backbone, small).pooled, backbone(small))


def test_patches_are_rows_of_pixels_channel_last() -> None:
    pixels = tokens.patches(IMAGES, (4, 4))
    assert pixels.shape == (3, 16, 48)
    expected = IMAGES[1, :, 4:8, 8:12].permute(1, 2, 0).flatten()
    assert torch.equal(pixels[1, 1 * 4 + 2], expected)


def test_checkpointing_changes_memory_only() -> None:
    backbone = vit().train()
    plain = tokens.encode(backbone, IMAGES).tokens
    backbone.set_grad_checkpointing(True)  # type: ignore[operator]
    torch.testing.assert_close(tokens.encode(backbone, IMAGES).tokens, plain)


def test_a_network_without_tokens_is_refused() -> None:
    resnet = timm.create_model("resnet10t", num_classes=0)
    with pytest.raises(ValueError, match=r"ResNet has no tokens.*vit_tiny"):
        tokens.require_tokens(resnet)
    with pytest.raises(ValueError, match="vit_tiny"):
        tokens.embed(resnet, IMAGES)


def test_positions_are_those_of_transformers() -> None:
    from transformers.models.vit_mae.modeling_vit_mae import build_2d_sinusoidal_position_embedding

    expected = build_2d_sinusoidal_position_embedding(3, 5, 16)
    torch.testing.assert_close(tokens.sincos((3, 5), 16, torch.device("cpu")), expected)


def test_positions_tell_rows_and_columns_apart() -> None:
    positions = tokens.sincos((3, 5), 8, torch.device("cpu"))
    assert positions.shape == (15, 8)
    expected = torch.tensor([2.0, 0.02]), torch.tensor([3.0, 0.03])  # the token of row 2 and column 3
    row, column = ([*angle.sin(), *angle.cos()] for angle in expected)
    torch.testing.assert_close(positions[13], torch.tensor([*row, *column]))
    assert len(positions.unique(dim=0)) == 15
