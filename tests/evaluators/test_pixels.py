import torch

from ssl_zoo.evaluators.pixels import from_pixels, to_pixels

FACTS = {"mean": [0.5, 0.25], "std": [0.5, 0.1]}


def test_each_is_the_inverse_of_the_other_and_pixels_stay_in_their_range() -> None:
    pixels = torch.rand(3, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    view = from_pixels(FACTS, pixels)
    assert torch.allclose(view[:, 0], (pixels[:, 0] - 0.5) / 0.5)
    assert torch.allclose(view[:, 1], (pixels[:, 1] - 0.25) / 0.1)
    assert torch.allclose(to_pixels(FACTS, view), pixels, atol=1e-6)
    assert to_pixels(FACTS, view + 100).max() == 1
