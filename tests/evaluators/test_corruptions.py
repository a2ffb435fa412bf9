import colorsys
import io

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import convolve, zoom

from ssl_zoo.evaluators import corruptions
from ssl_zoo.evaluators.corruptions import CORRUPTIONS, corrupt, disk, to_bytes


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


X = torch.rand(2, 3, 12, 10, generator=rng(5))
GREY = torch.full((1, 3, 64, 64), 0.5)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_severe_ones_change_more_and_results_are_8_bit_images(name: str) -> None:
    smooth = torch.nn.functional.interpolate(torch.rand(8, 3, 8, 8, generator=rng(3)), size=32, mode="bilinear")
    smooth = to_bytes(smooth).float() / 255
    changes = []
    for severity in (1, 5):
        y = corrupt(smooth, name, severity, rng())
        assert y.shape == smooth.shape
        assert torch.equal((y * 255).round() / 255, y)
        assert torch.equal(y, corrupt(smooth, name, severity, rng())), "the same random numbers give the same images"
        changes.append((y - smooth).abs().mean().item())
    assert 0 < changes[0] < changes[1] or name == "saturate"


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize("size", [(1, 8), (3, 96)])
def test_grey_digits_and_large_images_can_be_corrupted(name: str, size: tuple[int, int]) -> None:
    x = torch.rand(2, size[0], size[1], size[1], generator=rng())
    for severity in (1, 5):
        assert corrupt(x, name, severity, rng()).isfinite().all()


def test_noises_have_the_deviation_and_the_shares_that_they_state() -> None:
    assert (corruptions.gaussian_noise(GREY, 0.1, rng()) - 0.5).std() == pytest.approx(0.1, rel=0.05)
    shots = corruptions.shot_noise(GREY, 100, rng())
    assert shots.mean() == pytest.approx(0.5, rel=0.02)
    assert shots.var() == pytest.approx(0.5 / 100, rel=0.05)
    impulses = corruptions.impulse_noise(GREY, 0.2, rng())
    assert (impulses == 0).float().mean() == pytest.approx(0.1, abs=0.01)
    assert (impulses == 1).float().mean() == pytest.approx(0.1, abs=0.01)


@pytest.mark.parametrize("constants", [(0.3, 0.4), (1.5, 0.1), (3, 0.1), (10, 0.5)])
def test_defocus_averages_over_a_disk(constants: tuple[float, float]) -> None:
    kernel = disk(*constants)
    assert kernel.sum() == pytest.approx(1)
    reach = (kernel > 1e-12).nonzero() - kernel.shape[0] // 2
    assert reach.float().norm(dim=1).max() <= constants[0] + 2 * 2**0.5
    x = torch.rand(1, 1, 40, 40, generator=rng()).double()
    expected = convolve(x[0, 0].numpy(), kernel.numpy(), mode="mirror")
    assert np.allclose(corruptions.defocus_blur(x, constants, rng())[0, 0], expected)


def test_zoom_blur_is_the_mean_of_scipys_magnifications() -> None:
    x = torch.rand(1, 1, 32, 32, generator=rng()).double()
    zooms = (1.1, 1.25)
    total = x[0, 0].numpy().copy()
    for factor in zooms:
        side = int(np.ceil(32 / factor))
        top = (32 - side) // 2
        larger = zoom(x[0, 0, top : top + side, top : top + side].numpy(), factor, order=1)
        trim = (larger.shape[0] - 32) // 2
        total += larger[trim : trim + 32, trim : trim + 32]
    assert np.allclose(corruptions.zoom_blur(x, zooms, rng())[0, 0], total / 3)


def test_brightness_and_saturation_are_those_of_hsv() -> None:
    x = X.double()
    x[0, :, 0, 0], x[0, :, 0, 1] = 0.0, 0.7  # black and grey
    brighter, saturated = corruptions.brightness(x, 0.2, rng()), corruptions.saturate(x, (2.0, 0.1), rng())
    for b, i, j in np.ndindex(2, 12, 10):
        h, s, v = colorsys.rgb_to_hsv(*x[b, :, i, j].tolist())
        assert brighter[b, :, i, j].tolist() == pytest.approx(colorsys.hsv_to_rgb(h, s, min(v + 0.2, 1)), abs=1e-9)
        expected = colorsys.hsv_to_rgb(h, min(2 * s + 0.1, 1), v)
        assert saturated[b, :, i, j].tolist() == pytest.approx(expected, abs=1e-9)


def test_contrast_keeps_the_mean_and_scales_the_deviation() -> None:
    y = corruptions.contrast(X, 0.3, rng())
    assert torch.allclose(y.mean((2, 3)), X.mean((2, 3)), atol=1e-6)
    assert torch.allclose(y.std((2, 3)), 0.3 * X.std((2, 3)), atol=1e-6)


def test_jpeg_and_pixelate_are_pillows() -> None:
    pixels = to_bytes(X[:1])[0].permute(1, 2, 0).numpy()
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=40)
    expected = np.asarray(Image.open(file)).transpose(2, 0, 1)
    assert np.array_equal(to_bytes(corruptions.jpeg(X[:1], 40, rng()))[0], expected)
    small = Image.fromarray(pixels).resize((5, 6), Image.Resampling.BOX).resize((10, 12), Image.Resampling.BOX)
    assert np.array_equal(to_bytes(corruptions.pixelate(X[:1], 0.5, rng()))[0], np.asarray(small).transpose(2, 0, 1))


def test_bytes_survive_the_way_to_floats_and_back() -> None:
    levels = torch.arange(256)
    assert torch.equal(to_bytes(levels / 255).long(), levels)
