"""MAE's targets and loss against loops and transformers; what the encoder and the decoder see."""

import math

import pytest
import timm
import torch
from torch import nn

from ssl_zoo.backbones.image import image_backbone
from ssl_zoo.method import Batch
from ssl_zoo.methods.mae import MAE, pixel_targets

LABELS = torch.zeros(4, dtype=torch.long)


def vit() -> nn.Module:
    small = {"depth": 2, "embed_dim": 32, "num_heads": 2, "global_pool": "avg", "fc_norm": False}
    return image_backbone("vit_tiny_patch16_224", 3, 16, **small)  # type: ignore[arg-type]


def make(normalise: bool = True) -> MAE:
    return MAE(vit(), 0.75, decoder_dim=16, decoder_depth=1, decoder_num_heads=2, normalise_targets=normalise)


def test_targets_are_the_pixels_of_each_patch_normalised() -> None:
    view = torch.randn(2, 3, 8, 12)
    targets = pixel_targets(view, (4, 4), normalise=True)
    assert targets.shape == (2, 6, 48)
    for image, rows in zip(view, targets, strict=True):
        for n, row in enumerate(rows):
            top, left = 4 * (n // 3), 4 * (n % 3)
            values = [float(image[c, top + y, left + x]) for y in range(4) for x in range(4) for c in range(3)]
            mean = sum(values) / 48
            std = math.sqrt(sum((v - mean) ** 2 for v in values) / 47)
            torch.testing.assert_close(row, torch.tensor([(v - mean) / std for v in values]), atol=1e-5, rtol=1e-4)


def test_a_patch_of_one_value_is_its_own_target() -> None:
    view = torch.randn(2, 1, 4, 4)
    assert torch.equal(pixel_targets(view, (1, 1), normalise=True), view.view(2, 16, 1))


@pytest.mark.parametrize("normalise", [True, False])
def test_the_loss_is_that_of_transformers_for_its_mask_and_predictions(normalise: bool) -> None:
    from transformers import ViTMAEConfig, ViTMAEForPreTraining

    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    decoder = {"decoder_hidden_size": 16, "decoder_num_hidden_layers": 1, "decoder_num_attention_heads": 2}
    config = ViTMAEConfig(
        **small, **decoder, decoder_intermediate_size=16, image_size=16, patch_size=4, norm_pix_loss=normalise
    )
    view = torch.randn(4, 3, 16, 16)
    with torch.no_grad():
        theirs = ViTMAEForPreTraining(config).eval()(view)
    hidden = theirs.mask.bool()
    errors = theirs.logits[hidden] - pixel_targets(view, (4, 4), normalise)[hidden]
    torch.testing.assert_close(errors.square().mean(), theirs.loss)


def test_each_image_is_divided_anew() -> None:
    hidden, keep = make().divide(torch.randn(200, 3, 16, 16))
    assert (hidden.shape, keep.shape) == ((200, 48), (200, 16))
    assert torch.equal(torch.cat([hidden, keep], dim=1).sort(dim=1).values, torch.arange(64).expand(200, 64))
    share = torch.zeros(200, 64).scatter(1, hidden, 1).mean(dim=0)
    assert (share - 0.75).abs().max() < 0.16  # five standard deviations of 200 draws


def test_the_loss_is_the_squared_error_at_hidden_patches_only() -> None:
    method, view = make(), torch.randn(4, 3, 16, 16)
    torch.manual_seed(1)
    loss = method(Batch([view], LABELS, LABELS), 0.0)["loss"]
    torch.manual_seed(1)
    hidden, keep = method.divide(view)
    predictions, targets = method.reconstruct(view, keep, hidden).detach(), pixel_targets(view, (2, 2), True)
    total = 0.0
    for b in range(4):
        for m, n in enumerate(hidden[b].tolist()):
            total += float((predictions[b, m] - targets[b, n]).square().mean()) / (4 * 48)
    assert loss.item() == pytest.approx(total, rel=1e-5)


def test_a_head_that_gives_zero_has_the_loss_of_unit_variance() -> None:
    method, view = make(), torch.randn(4, 3, 16, 16)
    nn.init.zeros_(method.to_pixels.weight)
    nn.init.zeros_(method.to_pixels.bias)
    loss = method(Batch([view], LABELS, LABELS), 0.0)["loss"]
    assert loss.item() == pytest.approx(11 / 12, rel=1e-4)  # 12 values with a sum of squares of 11


def test_hidden_pixels_have_no_influence_and_order_none_either() -> None:
    method, view = make().eval(), torch.randn(4, 3, 16, 16)
    hidden, keep = method.divide(view)
    clean = method.reconstruct(view, keep, hidden)
    blocks = torch.zeros(4, 64).scatter(1, hidden, 1).view(4, 1, 8, 8)
    noisy = view + 9 * blocks.repeat_interleave(2, 2).repeat_interleave(2, 3) * torch.randn_like(view)
    torch.testing.assert_close(method.reconstruct(noisy, keep, hidden), clean, atol=1e-5, rtol=1e-5)
    turned = method.reconstruct(view, keep.flip(1), hidden.flip(1)).flip(1)
    torch.testing.assert_close(turned, clean, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(clean[:, 0], clean[:, 1])  # the decoder knows which place it fills


def test_all_global_views_count_and_local_ones_do_not() -> None:
    method, views = make(), [torch.randn(4, 3, 16, 16) for _ in range(2)]
    losses = []
    for crops in ([], [torch.randn(4, 3, 8, 8)]):
        torch.manual_seed(2)
        losses.append(method(Batch(views + crops, LABELS, LABELS), 0.0)["loss"])
    assert torch.equal(*losses)
    torch.manual_seed(2)
    parts = [method(Batch([view], LABELS, LABELS), 0.0)["loss"] for view in views]
    torch.testing.assert_close(losses[0], (parts[0] + parts[1]) / 2)


def test_every_parameter_learns() -> None:
    method = make()
    method(Batch([torch.randn(4, 3, 16, 16)], LABELS, LABELS), 0.0)["loss"].backward()
    assert [name for name, p in method.named_parameters() if p.grad is None] == []


def test_bad_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="needs a ViT"):
        MAE(timm.create_model("resnet10t", num_classes=0), 0.75, 16, 1, 2, True)
    for dim, heads in ((18, 2), (16, 3)):
        with pytest.raises(ValueError, match=rf"method\.decoder_dim={dim}"):
            MAE(vit(), 0.75, dim, 1, heads, True)
    with pytest.raises(ValueError, match=r"method\.mask_ratio"):
        MAE(vit(), 1.0, 16, 1, 2, True)
