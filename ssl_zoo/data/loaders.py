"""Batches of images on their way to the device: gathered from decoded pixels, or decoded and cropped by workers."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ssl_zoo.data.decode import open_image, to_array
from ssl_zoo.data.image_parts import Images
from ssl_zoo.data.order import Step
from ssl_zoo.views import Views


class Loaded(NamedTuple):
    """One process's batch. labels, indices: (b,) int64, the latter positions in the part of the data.

    images: (b, C, S, S) uint8; or crops from workers, V x (b, C, S, S) uint8; or none, where the device has them all.
    """

    images: Tensor | list[Tensor] | None
    labels: Tensor
    indices: Tensor
    epoch: int


class ResidentLoader:
    """One gather a batch, no work per example. pixels: (N, C, S, S) uint8, none where the device has them."""

    def __init__(self, steps: Iterable[Step], pixels: Tensor | None, labels: Tensor):
        self.steps, self.pixels, self.labels = steps, pixels, labels

    def __iter__(self) -> Iterator[Loaded]:
        for epoch, positions in self.steps:
            indices = torch.from_numpy(positions)
            images = None if self.pixels is None else self.pixels.index_select(0, indices.to(self.pixels.device))
            yield Loaded(images, self.labels.index_select(0, indices), indices, epoch)


class EncodedPart(NamedTuple):
    """The readable images of one part of the data. positions: (N,) of them in `images`; labels: (N,) int64."""

    images: Images
    positions: np.ndarray
    labels: Tensor
    in_chans: int

    def open(self, index: int) -> Image.Image:
        position = int(self.positions[index])
        return open_image(self.images[position], self.images.name(position), self.in_chans)


class Crops(Dataset):
    """Step -> its images, decoded whole, and cropped once for each view."""

    def __init__(self, part: EncodedPart, views: Views, seed: int):
        self.part, self.views, self.seed = part, views, seed

    def __getitem__(self, step: Step) -> Loaded:
        epoch, positions = step
        crops = [
            self.views.crop_in_worker(torch.from_numpy(to_array(self.part.open(i))), i, epoch, self.seed)
            for i in positions.tolist()
        ]
        indices = torch.from_numpy(positions)
        return Loaded(
            [torch.stack(view) for view in zip(*crops, strict=True)], self.part.labels[indices], indices, epoch
        )


def in_workers(crops: Crops, steps: Iterable[Step], num_workers: int) -> "DataLoader[Loaded]":
    """The batches of `steps`, in order, each made by one worker process (0: by this one)."""
    return DataLoader(
        crops,
        sampler=steps,
        batch_size=None,  # `crops` gives whole batches: nothing is collated
        num_workers=num_workers,
        pin_memory=torch.cuda.is_available(),
    )
