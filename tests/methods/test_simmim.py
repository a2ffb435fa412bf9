"""SimMIM's squares and loss against loops; the encoder sees the mask token only."""

import pytest
import timm
import torch
from torch import nn

from ssl_zoo.backbones import tokens
from ssl_zoo.backbones.image import image_backbone
from ssl_zoo.method import Batch
from ssl_zoo.methods.simmim import SimMIM

LABELS = torch.zeros(4, dtype=torch.long)


def make(mask_unit: int = 2) -> SimMIM:
    small = {"depth": 2, "embed_dim": 32, "num_heads": 2, "global_pool": "avg", "fc_norm": False}
    backbone = image_backbone("vit_tiny_patch16_224", 3, 16, **small)  # type: ignore[arg-type]
    return SimMIM(backbone, mask_ratio=0.6, mask_unit=mask_unit)


def test_whole_squares_are_hidden() -> None:
    mask = make().sample_mask(torch.randn(50, 3, 16, 16)).view(50, 4, 2, 4, 2)
    shares = mask.float().mean(dim=(2, 4))
    assert ((shares == 0) | (shares == 1)).all()
    assert shares.sum(dim=(1, 2)).tolist() == [10.0] * 50  # 0.6 of 16 squares
    assert shares.mean(dim=0).std() < 0.15


@pytest.mark.parametrize(("size", "unit"), [(16, 3), (8, 2), (8, 9), (8, 1)])
def test_any_grid_has_hidden_and_seen_patches(size: int, unit: int) -> None:
    mask = make(unit).sample_mask(torch.randn(20, 3, size, size))
    assert mask.shape == (20, (size // 2) ** 2)
    assert mask.any(dim=1).all()
    assert not mask.all(dim=1).any()


@pytest.mark.parametrize("unit", [2, 3])
def test_the_loss_is_the_absolute_error_at_hidden_pixels_only(unit: int) -> None:
    method, view = make(unit), torch.randn(4, 3, 16, 16)
    torch.manual_seed(1)
    loss = method(Batch([view], LABELS, LABELS), 0.0)["loss"]
    torch.manual_seed(1)
    mask = method.sample_mask(view)
    x = tokens.embed(method.backbone, view).detach()
    x[mask] = method.mask_token.detach()
    predictions = method.head(tokens.encode(method.backbone, view, embeddings=x).tokens).detach()
    total, count = 0.0, 0
    for b, n in mask.nonzero().tolist():
        top, left = 2 * (n // 8), 2 * (n % 8)
        pixels = view[b, :, top : top + 2, left : left + 2].permute(1, 2, 0).flatten()
        total += float((predictions[b, n] - pixels).abs().sum())
        count += 12
    assert loss.item() == pytest.approx(total / count, rel=1e-5)


def test_a_head_that_gives_zero_has_the_mean_absolute_pixel() -> None:
    method = make()
    nn.init.zeros_(method.head.weight)
    nn.init.zeros_(method.head.bias)
    view = torch.full((4, 3, 16, 16), -1.5)
    assert method(Batch([view], LABELS, LABELS), 0.0)["loss"].item() == pytest.approx(1.5)


def test_hidden_pixels_reach_the_loss_as_targets_only() -> None:
    method, view = make(), torch.randn(4, 3, 16, 16)
    torch.manual_seed(3)
    mask = method.sample_mask(view)
    area = mask.view(4, 1, 8, 8).repeat_interleave(2, 2).repeat_interleave(2, 3)
    raised = []
    for offset in (100.0, 200.0):  # far above any prediction, so that the loss is their mean minus the predictions'
        torch.manual_seed(3)
        raised.append(method(Batch([torch.where(area, offset, view)], LABELS, LABELS), 0.0)["loss"])
    torch.testing.assert_close(raised[1] - raised[0], torch.tensor(100.0), atol=1e-3, rtol=0)


def test_every_parameter_learns() -> None:
    method = make()
    method(Batch([torch.randn(4, 3, 16, 16)] * 2, LABELS, LABELS), 0.0)["loss"].backward()
    assert [name for name, p in method.named_parameters() if p.grad is None] == []


def test_a_network_without_patches_is_refused() -> None:
    with pytest.raises(ValueError, match="needs a ViT"):
        SimMIM(timm.create_model("resnet10t", num_classes=0), 0.6, 2)
