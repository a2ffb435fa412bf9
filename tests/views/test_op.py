"""What all ops share: the chance to act, and the refusal of wrong values by name."""

from collections.abc import Callable

import pytest
import torch

from ssl_zoo.views import Views
from ssl_zoo.views.colour import ColorJitter, Solarize
from ssl_zoo.views.geometry import CenterCrop, GaussianBlur, HorizontalFlip, RandomResizedCrop
from ssl_zoo.views.text import Windows
from tests.views.examples import draws, pictures


def test_only_the_chosen_examples_change() -> None:
    x = pictures(4000, h=16, w=16) / 255
    y = Solarize(0.5, p=0.3)(x, draws(4000))
    changed = (y != x).flatten(1).any(1)
    assert abs(changed.float().mean() - 0.3) < 0.03
    assert torch.equal(y[changed], Solarize(0.5, 1.0).apply(x[changed], ()))
    assert Solarize(0.5, p=0.0)(x, draws(4000)) is x


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: RandomResizedCrop(0, [0.08, 1]), r"RandomResizedCrop.size=0: give a whole number"),
        (lambda: RandomResizedCrop(32, [0.9, 0.5]), r"scale=0.5: give a number from 0.9 to 1"),
        (lambda: RandomResizedCrop(32, 0.5), r"scale=0.5: give two numbers"),  # type: ignore[arg-type]
        (lambda: RandomResizedCrop(32, [0.5, 1], interpolation="cubic"), r"interpolation='cubic': give bilinear"),
        (lambda: CenterCrop(32, 1.5), r"crop_ratio=1.5: give a number from"),
        (lambda: HorizontalFlip("often"), r"HorizontalFlip.p='often'"),  # type: ignore[arg-type]
        (lambda: ColorJitter(0.4, 0.4, 0.4, 0.6), r"hue=0.6: give a number from 0 to 0.5"),
        (lambda: GaussianBlur(4, [0.1, 2], 0.5), r"kernel=4: give an odd number, 5 say"),
        (lambda: Solarize(128, 0.5), r"threshold=128"),
        (lambda: Windows(0), r"length=0"),
        (lambda: Views([]), r"views.pipelines=\[\]"),
        (lambda: Views([[]], copies=[0]), r"views.copies=\[0\]"),
    ],
)
def test_a_wrong_value_is_named(make: Callable[[], object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()
