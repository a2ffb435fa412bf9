"""Batches of images for the device: gathered from decoded pixels, or decoded and cropped by workers."""

import shutil
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ssl_zoo.data.image.decode import open_image
from ssl_zoo.data.image.splits import Images
from ssl_zoo.data.order import BatchShare, training_batches
from ssl_zoo.views import Views

if TYPE_CHECKING:
    from ssl_zoo.data.image.module import ImageData


class Loaded(NamedTuple):
    """One process's batch.

    Attributes:
        images: (b, C, S, S) uint8; or crops from workers, V tensors (b, C, S, S) uint8; or None if all are on the
            device.
        labels: (b,) int64.
        indices: (b,) int64, positions in the split.
        epoch: of all examples.
    """

    images: Tensor | list[Tensor] | None
    labels: Tensor
    indices: Tensor
    epoch: int


class ResidentLoader:
    """Gathers each batch with one call and without work per example.

    Args:
        shares: this process's share of each batch.
        pixels: (N, C, S, S) uint8, or None if they are on the device.
        labels: (N,) int64.
    """

    def __init__(self, shares: Iterable[BatchShare], pixels: Tensor | None, labels: Tensor):
        self.shares = shares
        self.pixels = pixels
        self.labels = labels

    def __iter__(self) -> Iterator[Loaded]:
        for epoch, positions in self.shares:
            indices = torch.from_numpy(positions)
            images = None if self.pixels is None else self.pixels.index_select(0, indices.to(self.pixels.device))
            yield Loaded(images, self.labels.index_select(0, indices), indices, epoch)


class EncodedSplit(NamedTuple):
    """The readable images of one split.

    Attributes:
        images: encoded images, including unreadable ones.
        positions: (N,) int64, the readable ones in `images`.
        labels: (N,) int64.
        in_chans: channels to decode.
        bits: see `open_image`.
    """

    images: Images
    positions: np.ndarray
    labels: Tensor
    in_chans: int
    bits: int = 16

    def open(self, index: int) -> Tensor:
        """Decodes an image, (C, H, W) uint8, in its own size."""
        position = int(self.positions[index])
        name = self.images.name(position)
        return torch.from_numpy(open_image(self.images[position], name, self.in_chans, self.bits))


class Crops(Dataset):
    """Maps a batch to its images, decoded completely and cropped once per view."""

    def __init__(self, split: EncodedSplit, views: Views, seed: int):
        self.split = split
        self.views = views
        self.seed = seed

    def example_bytes(self, size: int) -> int:
        """Size of the crops of one example, made from an image of size x size pixels."""
        blank = torch.zeros(self.split.in_chans, size, size, dtype=torch.uint8)
        return sum(crop.numel() for crop in self.views.crop_in_worker(blank, index=0, epoch=0, seed=self.seed))

    def __getitem__(self, share: BatchShare) -> Loaded:
        epoch, positions = share
        crops = [self.views.crop_in_worker(self.split.open(i), i, epoch, self.seed) for i in positions.tolist()]
        indices = torch.from_numpy(positions)
        return Loaded(
            [torch.stack(view) for view in zip(*crops, strict=True)], self.split.labels[indices], indices, epoch
        )


PREFETCHED = 2
"""Batches that each worker prepares in advance, torch's default."""


def check_shared_memory(batch_bytes: int, num_workers: int) -> None:
    """Raises ValueError where the workers' batches do not fit into /dev/shm, through which they are transferred.

    A worker that finds it full is killed or waits forever. Containers have 64 MB by default.
    """
    try:
        free = shutil.disk_usage("/dev/shm").free
    except FileNotFoundError:  # other systems share memory differently
        return
    needed = PREFETCHED * num_workers * batch_bytes
    if needed > free:
        raise ValueError(
            f"data.num_workers={num_workers}: the batches of the workers take {needed / 1e6:,.0f} MB of shared "
            f"memory, and /dev/shm has {free / 1e6:,.0f} MB left. Enlarge it (docker run --shm-size=8g), give fewer "
            "workers, or data.num_workers=0"
        )


def in_workers(crops: Crops, shares: Iterable[BatchShare], num_workers: int) -> "DataLoader[Loaded]":
    """The batches of `shares`, in order, each made by one worker process; without workers by this process."""
    return DataLoader(
        crops,
        sampler=shares,
        batch_size=None,  # `crops` gives whole batches: nothing is collated
        num_workers=num_workers,
        prefetch_factor=PREFETCHED if num_workers else None,
        pin_memory=torch.cuda.is_available(),
    )


class RemainingBatches:
    """The batches of `data` from its `start_batch` when iteration begins, which is after a checkpoint was restored."""

    def __init__(self, data: "ImageData"):
        self.data = data

    def __iter__(self) -> Iterator[BatchShare]:
        data, trainer = self.data, self.data.trainer
        rank, world_size = (trainer.global_rank, trainer.world_size) if trainer else (0, 1)
        for epoch, rows in training_batches(
            data.num_train, data.batch_size, data.seed, data.start_batch, rank, world_size
        ):
            yield BatchShare(epoch, rows if data.train_positions is None else data.train_positions[rows])
