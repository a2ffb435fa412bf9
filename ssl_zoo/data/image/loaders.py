"""Batches of images on their way to the device: gathered from decoded pixels, or decoded and cropped by workers."""

import shutil
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ssl_zoo.data.image.decode import open_image
from ssl_zoo.data.image.parts import Images
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
    bits: int = 16

    def open(self, index: int) -> Tensor:
        """(C, H, W) uint8, of its own size."""
        position = int(self.positions[index])
        name = self.images.name(position)
        return torch.from_numpy(open_image(self.images[position], name, self.in_chans, self.bits))


class Crops(Dataset):
    """Step -> its images, decoded whole, and cropped once for each view."""

    def __init__(self, part: EncodedPart, views: Views, seed: int):
        self.part, self.views, self.seed = part, views, seed

    def example_bytes(self, size: int) -> int:
        """Of the crops of one example, from images of size x size pixels."""
        blank = torch.zeros(self.part.in_chans, size, size, dtype=torch.uint8)
        return sum(crop.numel() for crop in self.views.crop_in_worker(blank, index=0, epoch=0, seed=self.seed))

    def __getitem__(self, step: Step) -> Loaded:
        epoch, positions = step
        crops = [self.views.crop_in_worker(self.part.open(i), i, epoch, self.seed) for i in positions.tolist()]
        indices = torch.from_numpy(positions)
        return Loaded(
            [torch.stack(view) for view in zip(*crops, strict=True)], self.part.labels[indices], indices, epoch
        )


PREFETCHED = 2
"""Batches that each worker makes ahead, torch's default."""


def check_shared_memory(batch_bytes: int, num_workers: int) -> None:
    """Raises ValueError where batches of workers do not fit into /dev/shm, through which they come.

    A worker that finds it full is killed there, or waits for ever. Containers have 64 MB unless told otherwise.
    """
    try:
        free = shutil.disk_usage("/dev/shm").free
    except FileNotFoundError:  # other systems share memory by other means
        return
    needed = PREFETCHED * num_workers * batch_bytes
    if needed > free:
        raise ValueError(
            f"data.num_workers={num_workers}: the batches of the workers take {needed / 1e6:,.0f} MB of shared "
            f"memory, and /dev/shm has {free / 1e6:,.0f} MB left. Enlarge it (docker run --shm-size=8g), give fewer "
            "workers, or data.num_workers=0"
        )


def in_workers(crops: Crops, steps: Iterable[Step], num_workers: int) -> "DataLoader[Loaded]":
    """The batches of `steps`, in order, each made by one worker process (0: by this one)."""
    return DataLoader(
        crops,
        sampler=steps,
        batch_size=None,  # `crops` gives whole batches: nothing is collated
        num_workers=num_workers,
        prefetch_factor=PREFETCHED if num_workers else None,
        pin_memory=torch.cuda.is_available(),
    )
