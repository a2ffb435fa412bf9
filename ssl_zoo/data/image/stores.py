"""What is prepared once and kept in the cache: labels, decoded pixels, the list of images that cannot be read."""

import json
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
from ssl_zoo.data.image.parts import Images, Part
from ssl_zoo.data.layout import some

FORMAT = 2
"""Raise it when the same input gives other files; those of before are then left alone."""

Key = dict[str, Any]
"""JSON values that decide the content: the fingerprint of the source and how it is read."""
OpenParts = Callable[[], dict[str, Part]]
"""Opens the data set; called only when something has to be built from it."""


class Catalogue(NamedTuple):
    """What can be known from the labels, (N,) int64 of each part, and a hundred images of each part.

    side: of the images where they are squares of one size, else None. brightest: the largest value of those of 16 bits,
    None where there are none. transparent: how many show what is behind them. splits: what the parts were made of.
    """

    class_names: list[str]
    labels: dict[str, np.ndarray]
    side: int | None
    brightest: int | None
    transparent: int
    splits: list[str]


def catalogue(open_parts: OpenParts, key: Key, in_chans: int = 3, splits: Callable[[], list[str]] = list) -> Catalogue:
    """From the cache, or else from the data."""

    def build(folder: Path) -> None:
        parts = open_parts()
        for name, part in parts.items():
            np.save(folder / f"{name}.npy", part.labels)
        facts: dict[str, Any] = {"parts": list(parts), "class_names": parts["train"].classes, "splits": splits()}
        facts |= _look(parts, in_chans)
        (folder / "facts.json").write_text(json.dumps(facts), encoding="utf-8")

    folder = cached("catalogue", {"format": FORMAT, "in_chans": in_chans, **key}, build)
    facts = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
    labels = {name: np.load(folder / f"{name}.npy") for name in facts.pop("parts")}
    return Catalogue(labels=labels, **facts)


def _look(parts: dict[str, Part], in_chans: int, tried: int = 100) -> dict[str, int | None]:
    """side, brightest and transparent of a `Catalogue`."""
    sizes, values, transparent = set(), [], 0
    for part in parts.values():
        for position in np.unique(np.linspace(0, len(part.images) - 1, tried).astype(int)):
            encoded = part.images[position]
            try:
                sizes.add(open_image(encoded, part.images.name(position), in_chans).shape[1:])
            except UnreadableImage:  # reported when all are read
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
    """What becomes of unreadable images: on_error is "raise" or "skip", at most the fraction max_skipped of a part."""

    on_error: str
    max_skipped: float


class Unreadable(NamedTuple):
    position: int
    why: str


def read_once(
    open_parts: OpenParts,
    key: Key,
    size: int | None,
    in_chans: int,
    damage: Damage,
    num_workers: int,
    bits: int = 16,
) -> tuple[Path, dict[str, list[Unreadable]]]:
    """Reads every image of every part, once: the folder of what was found, and what could not be read.

    size: the folder then holds all readable images as size x size pixels, see `load_pixels`; None: they are only
        checked, all data of each being decoded.

    Raises:
        ValueError: naming an unreadable image, unless such are to be skipped; when too many are.
    """

    def build(folder: Path) -> None:
        found = {}
        for name, part in open_parts().items():
            with open(folder / f"{name}.pixels", "wb") as file:
                found[name] = _read_part(_Reader(part.images, in_chans, size, bits), name, damage, num_workers, file)
        (folder / "unreadable.json").write_text(json.dumps(found), encoding="utf-8")

    key = {"format": FORMAT, "size": size, "in_chans": in_chans, "bits": bits, **damage._asdict(), **key}
    folder = cached("checked" if size is None else "decoded", key, build)
    found = json.loads((folder / "unreadable.json").read_text(encoding="utf-8"))
    return folder, {name: [Unreadable(*entry) for entry in entries] for name, entries in found.items()}


def load_pixels(folder: Path, part: str, size: int, in_chans: int, into_ram: bool) -> Tensor:
    """(N, C, S, S) uint8 of the readable images of a part, memory-mapped unless they shall be read `into_ram`."""
    path = folder / f"{part}.pixels"
    # mode "c" is copy-on-write: torch wants writable memory
    flat = np.fromfile(path, np.uint8) if into_ram else np.memmap(path, np.uint8, mode="c")
    return torch.from_numpy(flat).view(-1, in_chans, size, size)


class _Reader(Dataset):
    """Chunk of positions -> the readable images, (n, C, S, S) uint8 (no pixels if size is None), and the others."""

    def __init__(self, images: Images, in_chans: int, size: int | None, bits: int):
        self.images, self.in_chans, self.size, self.bits = images, in_chans, size, bits

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


def _read_part(reader: _Reader, part: str, damage: Damage, num_workers: int, file: BinaryIO) -> list[Unreadable]:
    from rich.progress import MofNCompleteColumn, Progress

    n = len(reader.images)
    at_once = max(1, min(256, 2**22 // (reader.in_chans * (reader.size or 1) ** 2)))
    chunks = [range(start, min(start + at_once, n)) for start in range(0, n, at_once)]
    num_workers = num_workers if n > 2000 else 0
    check_shared_memory(at_once * reader.in_chans * (reader.size or 0) ** 2, num_workers)
    loader = DataLoader(reader, sampler=chunks, batch_size=None, num_workers=num_workers)
    unreadable: list[Unreadable] = []
    with Progress(*Progress.get_default_columns(), MofNCompleteColumn()) as progress:
        bar = progress.add_task(f"{'checking' if reader.size is None else 'decoding'} {part} images", total=n)
        for chunk, (pixels, failed) in zip(chunks, loader, strict=True):
            unreadable += failed
            if failed and damage.on_error == "raise":
                raise ValueError(f"{failed[0].why}. Repair or remove the image, or give data.on_error=skip")
            if len(unreadable) > damage.max_skipped * n:
                raise ValueError(
                    f"data.max_skipped={damage.max_skipped}: {len(unreadable)} of {n} {part} images cannot be read so "
                    f"far, and {int(damage.max_skipped * n)} may be skipped. Raise data.max_skipped, or repair "
                    f"{some(entry.why for entry in unreadable)}"
                )
            file.write(pixels.numpy().data)
            progress.advance(bar, len(chunk))
    return unreadable
