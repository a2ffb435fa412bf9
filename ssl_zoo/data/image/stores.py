"""What is prepared once and kept in the cache: labels, decoded pixels, and the list of unreadable images."""

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ssl_zoo.data.cache import cached
from ssl_zoo.data.image.decode import UnreadableImage, brightest, is_transparent, open_image, resize_and_crop
from ssl_zoo.data.image.loaders import check_shared_memory
from ssl_zoo.data.image.splits import Images, ImageSplit
from ssl_zoo.data.layout import abbreviate

CACHE_FORMAT = 2
"""Raise it when the same input gives other files; older files are then ignored."""
STORES = ("auto", "device", "ram", "mmap", "encoded")
DECODED_LIMIT = 8 * 2**30
"""Bytes of pixels above which `store: auto` leaves images encoded."""
MEMORY_SHARE = 0.25
"""Maximum share of a memory that `store: auto` fills with pixels."""

Key = dict[str, Any]
"""JSON values that determine the content: the fingerprint of the source and how it is read."""
OpenSplits = Callable[[], dict[str, ImageSplit]]
"""Opens the data set; called only when something has to be built from it."""


class Catalogue(NamedTuple):
    """What the labels, and a hundred images of each split, show.

    Attributes:
        class_names: by label.
        labels: (N,) int64 of each split.
        side: of the images if they are squares of one size, else None.
        brightest: maximum value of the 16-bit images, None if there are none.
        transparent: number of images with transparent pixels.
        splits: names of the source's splits that were read.
    """

    class_names: list[str]
    labels: dict[str, np.ndarray]
    side: int | None
    brightest: int | None
    transparent: int
    splits: list[str]


def load_catalogue(
    open_splits: OpenSplits, key: Key, in_chans: int = 3, splits_to_read: Callable[[], list[str]] = list
) -> Catalogue:
    """The catalogue of a data set, from the cache or else from the data.

    Args:
        open_splits: opens the data.
        key: see `Key`.
        in_chans: channels of the images.
        splits_to_read: gives the names of the source's splits that are read.
    """

    def build(folder: Path) -> None:
        splits = open_splits()
        for name, split in splits.items():
            np.save(folder / f"{name}.npy", split.labels)
        facts: dict[str, Any] = {"parts": list(splits), "class_names": splits["train"].classes}
        facts |= {"splits": splits_to_read(), **_inspect(splits, in_chans)}
        (folder / "facts.json").write_text(json.dumps(facts), encoding="utf-8")

    folder = cached("catalogue", {"format": CACHE_FORMAT, "in_chans": in_chans, **key}, build)
    facts = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
    labels = {name: np.load(folder / f"{name}.npy") for name in facts.pop("parts")}
    return Catalogue(labels=labels, **facts)


def choose_store(catalogue: Catalogue, in_chans: int, image_size: int) -> str:
    """What `store: auto` stands for.

    Whether to decode depends on the data alone; where pixels are kept depends on the machine and changes no result.
    """
    size = sum(map(len, catalogue.labels.values())) * in_chans * image_size**2
    if catalogue.side is None or catalogue.side > image_size or size > DECODED_LIMIT:
        return "encoded"
    if torch.cuda.is_available() and size < MEMORY_SHARE * torch.cuda.get_device_properties(0).total_memory:
        return "device"
    return "ram" if size < MEMORY_SHARE * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") else "mmap"


def _inspect(splits: dict[str, ImageSplit], in_chans: int, tried: int = 100) -> dict[str, int | None]:
    """The fields side, brightest and transparent of a `Catalogue`, from `tried` images of each split."""
    sizes, values, transparent = set(), [], 0
    for split in splits.values():
        for position in np.unique(np.linspace(0, len(split.images) - 1, tried).astype(int)):
            encoded = split.images[position]
            try:
                sizes.add(open_image(encoded, split.images.name(position), in_chans).shape[1:])
            except UnreadableImage:  # reported when all images are read
                continue
            values.append(brightest(encoded))
            transparent += is_transparent(encoded)
    side = min(sizes)[0] if len(sizes) == 1 and len(set(min(sizes))) == 1 else None
    return {
        "side": side,
        "brightest": max((value for value in values if value is not None), default=None),
        "transparent": transparent,
    }


class Damage(NamedTuple):
    """What to do with unreadable images.

    Attributes:
        on_error: "raise" or "skip".
        max_skipped: maximum fraction of a split that may be skipped.
    """

    on_error: str
    max_skipped: float


class Unreadable(NamedTuple):
    """An image that cannot be read.

    Attributes:
        position: in its split.
        why: the error message.
    """

    position: int
    why: str


def read_images(
    open_splits: OpenSplits,
    key: Key,
    size: int | None,
    in_chans: int,
    damage: Damage,
    num_workers: int,
    bits: int = 16,
) -> tuple[Path, dict[str, list[Unreadable]]]:
    """Reads every image of every split, unless the cache has the result already.

    Args:
        open_splits: opens the data.
        key: see `Key`.
        size: the folder then contains all readable images as size x size pixels, see `load_pixels`; None: images are
            only checked, by decoding them completely.
        in_chans: channels of the images.
        damage: what to do with unreadable images.
        num_workers: processes that decode.
        bits: see `open_image`.

    Returns:
        The folder in the cache, and the unreadable images of each split.

    Raises:
        ValueError: naming an unreadable image, unless such are to be skipped; when too many are.
    """

    def build(folder: Path) -> None:
        found = {}
        for name, split in open_splits().items():
            with open(folder / f"{name}.pixels", "wb") as file:
                found[name] = _read_split(_Reader(split.images, in_chans, size, bits), name, damage, num_workers, file)
        (folder / "unreadable.json").write_text(json.dumps(found), encoding="utf-8")

    key = {"format": CACHE_FORMAT, "size": size, "in_chans": in_chans, "bits": bits, **damage._asdict(), **key}
    folder = cached("checked" if size is None else "decoded", key, build)
    found = json.loads((folder / "unreadable.json").read_text(encoding="utf-8"))
    return folder, {name: [Unreadable(*entry) for entry in entries] for name, entries in found.items()}


def load_pixels(folder: Path, split: str, size: int, in_chans: int, into_ram: bool) -> Tensor:
    """The readable images of a split, (N, C, S, S) uint8, read `into_ram` or memory-mapped."""
    path = folder / f"{split}.pixels"
    # mode "c" is copy-on-write: torch needs writable memory
    flat = np.fromfile(path, np.uint8) if into_ram else np.memmap(path, np.uint8, mode="c")
    return torch.from_numpy(flat).view(-1, in_chans, size, size)


class _Reader(Dataset):
    """Maps positions to the readable images, (n, C, S, S) uint8 (without pixels if size is None), and the others."""

    def __init__(self, images: Images, in_chans: int, size: int | None, bits: int):
        self.images = images
        self.in_chans = in_chans
        self.size = size
        self.bits = bits

    def __getitem__(self, positions: Sequence[int]) -> tuple[Tensor, list[Unreadable]]:
        pixels, unreadable = [np.empty((0, self.in_chans, self.size or 0, self.size or 0), np.uint8)], []
        for position in positions:
            name = self.images.name(position)
            try:
                image = open_image(self.images[position], name, self.in_chans, self.bits)
            except UnreadableImage as error:
                unreadable.append(Unreadable(position, str(error)))
                continue
            if self.size is not None:
                pixels.append(resize_and_crop(image, self.size)[None])
        return torch.from_numpy(np.concatenate(pixels)), unreadable


def _read_split(reader: _Reader, split: str, damage: Damage, num_workers: int, file: BinaryIO) -> list[Unreadable]:
    """Reads all images of a split, with a progress bar, and appends their pixels to `file`."""
    from rich.progress import MofNCompleteColumn, Progress

    n = len(reader.images)
    at_once = max(1, min(256, 2**22 // (reader.in_chans * (reader.size or 1) ** 2)))
    chunks = [range(start, min(start + at_once, n)) for start in range(0, n, at_once)]
    num_workers = num_workers if n > 2000 else 0
    check_shared_memory(at_once * reader.in_chans * (reader.size or 0) ** 2, num_workers)
    loader = DataLoader(reader, sampler=chunks, batch_size=None, num_workers=num_workers)
    unreadable: list[Unreadable] = []
    with Progress(*Progress.get_default_columns(), MofNCompleteColumn()) as progress:
        bar = progress.add_task(f"{'checking' if reader.size is None else 'decoding'} {split} images", total=n)
        for chunk, (pixels, failed) in zip(chunks, loader, strict=True):
            unreadable += failed
            if failed and damage.on_error == "raise":
                raise ValueError(f"{failed[0].why}. Repair or remove the image, or give data.on_error=skip")
            if len(unreadable) > damage.max_skipped * n:
                raise ValueError(
                    f"data.max_skipped={damage.max_skipped}: {len(unreadable)} of {n} {split} images cannot be read so "
                    f"far, and {int(damage.max_skipped * n)} may be skipped. Raise data.max_skipped, or repair "
                    f"{abbreviate(entry.why for entry in unreadable)}"
                )
            file.write(pixels.numpy().data)
            progress.advance(bar, len(chunk))
    return unreadable
