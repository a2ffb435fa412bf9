"""A batch is its examples, from memory or from workers, whatever their number."""

from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from ssl_zoo.data.image.decode import UnreadableImage
from ssl_zoo.data.image.loaders import Crops, EncodedSplit, ResidentLoader, in_workers
from ssl_zoo.data.image.sources import Files
from ssl_zoo.data.order import BatchShare, training_batches
from ssl_zoo.views import Views
from ssl_zoo.views.geometry import CenterCrop, RandomResizedCrop
from tests.data.pictures import picture, write


def test_a_resident_batch_is_a_gather() -> None:
    pixels = torch.randint(0, 256, (10, 3, 4, 4), dtype=torch.uint8)
    labels = torch.arange(10) * 2
    loader = ResidentLoader(training_batches(10, 4, seed=0, start_batch=0), pixels, labels)
    for batch, share in zip(islice(loader, 5), training_batches(10, 4, seed=0, start_batch=0), strict=False):
        assert batch.images is not None
        assert (batch.images == pixels[share.indices]).all()
        assert (batch.labels == labels[share.indices]).all()
        assert (batch.indices.numpy() == share.indices).all()
        assert batch.epoch == share.epoch
    bare = next(iter(ResidentLoader([BatchShare(3, np.array([1, 2]))], None, labels)))
    assert bare.images is None
    assert bare.epoch == 3


@pytest.fixture
def part(tmp_path: Path) -> EncodedSplit:
    """Six pictures of different sizes, of which number 1 is left out."""
    paths = [write(tmp_path, 1, first=i, side=10 + i)[0] for i in range(6)]
    positions = np.array([0, 2, 3, 4, 5])
    return EncodedSplit(Files(tmp_path, paths), positions, torch.tensor([0, 2, 3, 4, 5]), 3)


def test_workers_crop_with_the_draws_of_the_views(part: EncodedSplit) -> None:
    views = Views([[RandomResizedCrop(8, (0.3, 1))]], [2])
    batches = [BatchShare(0, np.array([1, 0])), BatchShare(0, np.array([3, 2])), BatchShare(1, np.array([1, 4]))]
    found = [list(in_workers(Crops(part, views, seed=5), batches, num_workers)) for num_workers in (0, 1, 2)]
    for share, alone, *others in zip(batches, *found, strict=True):
        assert alone.images is not None
        assert isinstance(alone.images, list)
        assert [(crop.shape, crop.dtype) for crop in alone.images] == [((2, 3, 8, 8), torch.uint8)] * 2
        assert alone.labels.tolist() == part.labels[share.indices].tolist()
        assert alone.epoch == share.epoch
        for other in others:
            assert isinstance(other.images, list)
            assert all(torch.equal(a, b) for a, b in zip(alone.images, other.images, strict=True))
        index = int(share.indices[0])
        whole = torch.from_numpy(
            np.array(
                picture(int(part.positions[index]), 10 + int(part.positions[index]), 10 + int(part.positions[index]))
            )
            .transpose(2, 0, 1)
            .copy()
        )
        direct = views(whole[None], torch.tensor([index]), share.epoch, 5)
        for view in range(2):
            assert (alone.images[view][0] / 255 - direct[view][0]).abs().max() <= 0.51 / 255  # rounded to uint8
    first, later = found[0][0].images, found[0][2].images
    assert isinstance(first, list)
    assert isinstance(later, list)
    assert any((a[0] != b[0]).any() for a, b in zip(first, later, strict=True))  # the same example in another epoch


def test_an_image_that_broke_meanwhile_is_named(part: EncodedSplit) -> None:
    Path(part.images.name(3)).unlink()
    loader = in_workers(Crops(part, Views([[CenterCrop(8)]]), 0), [BatchShare(0, np.array([0, 2]))], 1)
    with pytest.raises(UnreadableImage, match=r"0003.png: .*No such file"):
        list(loader)
