"""The denoising autoencoder: its noise, its decoder's sizes, and the loss against the clean image."""

import math

import pytest
import torch
from torch import nn

from ssl_zoo.method import Batch
from ssl_zoo.methods.denoise import Decoder, Denoise, randn_rows

LABELS = torch.zeros(4, dtype=torch.long)


def make(noise_std: float = 0.5, image_size: int = 8) -> Denoise:
    backbone = nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(48, 6))
    backbone.num_features = 6  # type: ignore[assignment]
    return Denoise(backbone, noise_std, hidden_dim=8, in_chans=3, image_size=image_size)


def test_the_noise_is_standard_normal() -> None:
    torch.manual_seed(0)
    x = randn_rows(100, 3, 40, 40, device=torch.device("cpu"))
    assert x.isfinite().all()
    assert abs(x.mean().item()) < 0.01  # 480,000 draws: seven standard errors
    assert x.std().item() == pytest.approx(1, abs=0.01)
    for bound in (-2, -1, 0, 1, 2):
        below = 0.5 * (1 + math.erf(bound / math.sqrt(2)))
        assert (x < bound).float().mean().item() == pytest.approx(below, abs=0.005)


def test_the_ends_of_the_uniform_draws_stay_finite(monkeypatch: pytest.MonkeyPatch) -> None:
    ends = torch.tensor([0.0, 0.5, 1 - 2**-24])
    monkeypatch.setattr("ssl_zoo.methods.denoise.rand_rows", lambda *shape, device: ends)
    low, middle, high = randn_rows(3, device=torch.device("cpu")).tolist()
    assert -6 < low < -5
    assert abs(middle) < 1e-6
    assert high == pytest.approx(-low)


@pytest.mark.parametrize(("image_size", "side"), [(4, 4), (8, 8), (28, 28), (30, 32), (33, 40), (64, 64), (224, 224)])
def test_the_decoder_covers_the_image(image_size: int, side: int) -> None:
    assert Decoder(6, 2, 3, image_size)(torch.randn(2, 6)).shape == (2, 3, side, side)


def test_the_loss_is_the_squared_error_to_the_clean_views() -> None:
    method, views, local = make(), [torch.randn(4, 3, 8, 8) for _ in range(2)], torch.randn(4, 3, 4, 4)
    torch.manual_seed(1)
    loss = method(Batch([*views, local], LABELS, LABELS), 0.0)["loss"]
    torch.manual_seed(1)
    noisy = [view + 0.5 * randn_rows(4, 3, 8, 8, device=view.device) for view in views]
    images = method.decoder(torch.cat([method.backbone(view) for view in noisy])).detach()
    total = 0.0
    for image, view in zip(images, torch.cat(views), strict=True):
        total += sum(float(a - b) ** 2 for a, b in zip(image.flatten(), view.flatten(), strict=True))
    assert loss.item() == pytest.approx(total / (8 * 3 * 64), rel=1e-4)


def test_a_decoder_that_gives_zero_has_the_mean_square_of_the_pixels() -> None:
    method = make(noise_std=3.0, image_size=7)
    last = method.decoder[-1]
    nn.init.zeros_(last.weight)  # type: ignore[arg-type]
    nn.init.zeros_(last.bias)  # type: ignore[arg-type]
    view = torch.full((4, 3, 7, 7), 2.0)
    assert method(Batch([view], LABELS, LABELS), 0.0)["loss"].item() == pytest.approx(4.0)


def test_an_odd_size_is_cut_out_of_the_decoded_image() -> None:
    method = make(image_size=9)
    loss = method(Batch([torch.randn(4, 3, 9, 9)], LABELS, LABELS), 0.0)["loss"]
    loss.backward()
    assert [name for name, p in method.named_parameters() if p.grad is None] == []


def test_bad_noise_and_text_are_refused() -> None:
    with pytest.raises(ValueError, match=r"method\.noise_std"):
        make(noise_std=0)
    with pytest.raises(ValueError, match="images"):
        make()(Batch([torch.ones(4, 7, dtype=torch.long)], LABELS, LABELS), 0.0)
