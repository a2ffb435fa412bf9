"""RotNet: the four turns, their labels, and the loss against a loop."""

import math

import pytest
import torch
from torch import Tensor, nn

from ssl_zoo.method import Batch
from ssl_zoo.methods.rotnet import RotNet

LABELS = torch.zeros(5, dtype=torch.long)


def make(size: int = 4) -> RotNet:
    backbone = nn.Sequential(nn.AdaptiveAvgPool2d(size), nn.Flatten(), nn.Linear(3 * size * size, 6))
    backbone.num_features = 6  # type: ignore[assignment]
    return RotNet(backbone)


def turned(image: Tensor, quarter_turns: int) -> Tensor:
    """Counter-clockwise, pixel by pixel: (C, S, S)."""
    for _ in range(quarter_turns):
        side = image.shape[-1]
        out = torch.empty_like(image)
        for y in range(side):
            for x in range(side):
                out[:, side - 1 - x, y] = image[:, y, x]
        image = out
    return image


@pytest.mark.parametrize("sizes", [[4], [4, 4], [8, 8, 4]])
def test_loss_and_accuracy_equal_the_loop_over_views_images_and_turns(sizes: list[int]) -> None:
    method, views = make(), [torch.randn(5, 3, size, size) for size in sizes]
    scalars = method(Batch(views, LABELS, LABELS), 0.0)
    losses, hits = [], []
    for view in views:
        for image in view:
            for k in range(4):
                logits = method.classifier(method.backbone(turned(image, k)[None]))[0].tolist()
                losses.append(math.log(sum(math.exp(v) for v in logits)) - logits[k])
                hits.append(logits[k] == max(logits))
    assert scalars["loss"].item() == pytest.approx(sum(losses) / len(losses), rel=1e-5)
    assert scalars["accuracy"].item() == pytest.approx(sum(hits) / len(hits))


def test_a_classifier_that_knows_nothing_has_log_4() -> None:
    method = make()
    nn.init.zeros_(method.classifier.weight)
    nn.init.zeros_(method.classifier.bias)
    loss = method(Batch([torch.randn(5, 3, 4, 4)], LABELS, LABELS), 0.0)["loss"]
    assert loss.item() == pytest.approx(math.log(4))


def test_images_alike_from_all_sides_cannot_be_told() -> None:
    method, corner = make(), torch.randn(5, 3, 2, 2)
    image = sum(torch.rot90(nn.functional.pad(corner, (0, 2, 0, 2)), k, (2, 3)) for k in range(4))
    assert isinstance(image, Tensor)
    assert method(Batch([image], LABELS, LABELS), 0.0)["loss"] >= math.log(4)


def test_text_is_refused() -> None:
    with pytest.raises(ValueError, match="images"):
        make()(Batch([torch.ones(5, 7, dtype=torch.long)], LABELS, LABELS), 0.0)
