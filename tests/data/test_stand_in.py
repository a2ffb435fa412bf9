"""Noise has the shapes of the data that it stands for."""

from typing import Any

import torch

from ssl_zoo.data.stand_in import StandIn
from ssl_zoo.views import Views
from ssl_zoo.views.colour import Normalize
from ssl_zoo.views.geometry import RandomResizedCrop

IMAGES: dict[str, Any] = {"modality": "image", "image_size": 16, "in_chans": 3}
TEXT: dict[str, Any] = {"vocab_size": 50, "num_special": 5, "max_length": 9}


def test_images_and_captions() -> None:
    views = Views([[RandomResizedCrop(16, (0.3, 1)), Normalize([0.5] * 3, [0.2] * 3)]], [2])
    for facts, count in ((IMAGES, 2), (IMAGES | TEXT, 3)):
        data = StandIn(facts, views, batch_size=4)
        raw = data.transfer_batch_to_device(data.batch(), torch.device("cpu"), 0)
        batch = data.on_after_batch_transfer(raw, 0)
        assert [tuple(view.shape) for view in batch.views] == [(4, 3, 16, 16)] * 2 + [(4, 9)] * (count - 2)
        assert batch.labels.tolist() == [0] * 4


def test_text() -> None:
    data = StandIn({"modality": "text", **TEXT}, Views([[]]), batch_size=64, length=7)
    (view,) = data.on_after_batch_transfer(data.batch(), 0).views
    assert view.shape == (64, 7)
    assert (view.min(), view.max()) == (5, 49)
    assert torch.equal(view, data.batch().examples)
