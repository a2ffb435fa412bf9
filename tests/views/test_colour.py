"""Ops on values against torchvision for the same parameters, and the distribution of what they draw."""

from collections import Counter

import pytest
import torch

from ssl_zoo.views.colour import AdditiveNoise, ColorJitter, Grayscale, Normalize, Solarize
from ssl_zoo.views.op import Op
from tests.views.examples import MEAN, STD, draws, error, pictures


@pytest.mark.parametrize(
    ("op", "channels"),
    [
        (ColorJitter(0.8, 0.8, 0.8, 0.5), 3),
        (ColorJitter(0.8, 0.8, 0.8, 0.5), 1),
        (ColorJitter(0.0, 1.5, 0.0, 0.0), 3),
        (Grayscale(1.0), 3),
        (Grayscale(1.0), 1),
        (Solarize(0.5, 1.0), 3),
        (Normalize(MEAN, STD), 3),
    ],
)
def test_op_equals_torchvision(op: Op, channels: int) -> None:
    x = pictures(200, channels) / 255
    params = op.sample(draws(200), x)
    worst = error(op, x, params)
    print(f"{type(op).__name__}, {channels} channels: {worst:.1e}")
    assert worst < 1e-5
    if isinstance(op, ColorJitter):
        assert len(set(map(tuple, params[0].tolist()))) == 24, "not every order of the four parts was compared"


def test_colour_jitter_draws_what_torchvision_does() -> None:
    order, amounts = ColorJitter(0.8, 1.5, 0.0, 0.2).sample(draws(24_000), pictures(1) / 255)
    assert all(850 < times < 1150 for times in Counter(map(tuple, order.tolist())).values())
    least, most = amounts.min(0).values, amounts.max(0).values
    assert torch.allclose(least, torch.tensor([0.2, 0.0, 1.0, -0.2]), atol=1e-3)
    assert torch.allclose(most, torch.tensor([1.8, 2.5, 1.0, 0.2]), atol=1e-3)


def test_noise_is_keyed_and_stays_in_range() -> None:
    x = torch.full((500, 1, 16, 16), 0.5)
    y = AdditiveNoise(0.1)(x, draws(500))
    assert abs(y.std() - 0.1) < 1e-3
    assert abs(y.mean() - 0.5) < 1e-3
    assert torch.equal(AdditiveNoise(0.1)(x[7:9], draws(500)[slice(7, 9)]), y[7:9])
    assert AdditiveNoise(2.0)(x, draws(500)).aminmax() == (0, 1)


def test_statistics_of_other_channels_are_refused() -> None:
    with pytest.raises(ValueError, match=r"Normalize.mean=.*give 1 numbers each"):
        Normalize(MEAN, STD)(torch.zeros(1, 1, 4, 4), draws(1))
