"""Geometric ops against torchvision for the same parameters, and the distribution of what they draw."""

import pytest
import torch
from torchvision.transforms import RandomResizedCrop as ReferenceCrop

from ssl_zoo.views.geometry import CenterCrop, GaussianBlur, HorizontalFlip, RandomAffine, RandomResizedCrop
from ssl_zoo.views.op import Op
from tests.views.examples import draws, error, pictures


@pytest.mark.parametrize(
    ("op", "shape"),
    [
        (RandomResizedCrop(28, [0.08, 1]), (3, 32, 32)),
        (RandomResizedCrop(32, [0.08, 1], interpolation="bicubic"), (3, 32, 32)),
        (RandomResizedCrop(24, [0.2, 1], [0.5, 2], "bicubic"), (1, 50, 80)),
        (RandomResizedCrop(64, [0.05, 1]), (3, 61, 33)),
        (CenterCrop(32), (3, 32, 32)),
        (CenterCrop(32, 0.8, "bicubic"), (3, 47, 91)),
        (HorizontalFlip(1.0), (3, 32, 32)),
        (RandomAffine(30, 0.2, [0.7, 1.3], 20, fill=0.3), (3, 32, 32)),
        (RandomAffine(180, 0.1, [0.5, 1.5], 40), (1, 16, 23)),
        (GaussianBlur(3, [0.1, 2], 1.0), (3, 32, 32)),
        (GaussianBlur(23, [0.1, 2], 1.0), (1, 40, 33)),
    ],
)
def test_op_equals_torchvision(op: Op, shape: tuple[int, int, int]) -> None:
    x = pictures(24, *shape) / 255
    worst = error(op, x, op.sample(draws(24).at(1), x))
    print(f"{type(op).__name__} {shape}: {worst:.1e}")
    assert worst < 1e-5


def test_crop_boxes_are_distributed_as_torchvisions() -> None:
    x, n = torch.zeros(1, 3, 60, 100), 4000
    ours = torch.stack(RandomResizedCrop(32, [0.08, 1]).sample(draws(n), x), 1).double()
    torch.manual_seed(0)
    theirs = torch.tensor([ReferenceCrop.get_params(x[0], [0.08, 1], [3 / 4, 4 / 3]) for _ in range(n)]).double()
    spread = (ours.var(0) + theirs.var(0)).div(n).sqrt()
    assert ((ours.mean(0) - theirs.mean(0)).abs() < 4 * spread).all()
    assert ((ours.std(0) / theirs.std(0) - 1).abs() < 0.06).all()
    top, left, height, width = ours.unbind(1)
    assert min(top.min(), left.min()) >= 0
    assert (top + height).max() <= 60
    assert (left + width).max() <= 100


@pytest.mark.parametrize("size", [(10, 301), (300, 11), (9, 200)])
def test_crop_of_an_extreme_shape_falls_back_to_the_middle(size: tuple[int, int]) -> None:
    x = torch.zeros(1, 3, *size)
    box = RandomResizedCrop(32, [1.0, 1.0]).sample(draws(1), x)
    assert tuple(int(value) for value in box) == ReferenceCrop.get_params(x[0], [1.0, 1.0], [3 / 4, 4 / 3])


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_one_image_is_cropped_as_in_a_batch(interpolation: str) -> None:
    x, op = pictures(8, h=70, w=45), RandomResizedCrop(24, [0.08, 1], interpolation=interpolation)
    whole = op(x / 255, draws(8))
    for k in range(8):
        torch.testing.assert_close(op.crop(x[k], draws(8)[slice(k, k + 1)]), whole[k], atol=1e-5, rtol=0)


def test_affine_draws_within_its_limits() -> None:
    x = torch.zeros(1, 1, 16, 20)
    angle, right, down, scale, shear = RandomAffine(15, 0.1, [0.8, 1.3], 10).sample(draws(5000), x)
    for drawn, least, most in (
        (angle, -15, 15),
        (right, -2, 2),
        (down, -1.6, 1.6),
        (scale, 0.8, 1.3),
        (shear, -10, 10),
    ):
        assert least <= drawn.min() < least + 0.01 * (most - least)
        assert most >= drawn.max() > most - 0.01 * (most - least)


def test_a_kernel_wider_than_the_image_is_refused() -> None:
    with pytest.raises(ValueError, match=r"GaussianBlur.kernel=9: give 7 or less for 4 pixels"):
        GaussianBlur(9, [1, 2], 1.0)(torch.zeros(1, 3, 4, 4), draws(1))
