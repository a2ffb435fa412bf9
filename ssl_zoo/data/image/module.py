"""The data module for images: source -> splits -> store (decoded, or encoded for workers) -> loader -> views."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor

from ssl_zoo.data.image.loaders import (
    Crops,
    EncodedSplit,
    Loaded,
    RemainingSteps,
    ResidentLoader,
    check_shared_memory,
    in_workers,
)
from ssl_zoo.data.image.sources import open_images
from ssl_zoo.data.image.splits import ImageSplit, choose_splits, read_splits
from ssl_zoo.data.image.stores import STORES, Catalogue, Damage, Key, catalogue, choose_store, load_pixels, read_once
from ssl_zoo.data.labels import describe_labels
from ssl_zoo.data.layout import abbreviate
from ssl_zoo.data.locate import as_path, print_on_rank_zero
from ssl_zoo.data.order import Step, check_batch, stratified
from ssl_zoo.method import Batch
from ssl_zoo.views import Views

BRIGHT = 2**14
"""16-bit images with all values below this use fewer bits and would be nearly black."""


class ImageData(LightningDataModule):
    """Images and labels as training views on the device, and as plain views in order for evaluation.

    Args:
        path: a Hub id, a folder in the Hub's layout, a parquet file, tar shards, a CSV or JSON table of paths, a folder
            of class folders, of images or of such tables, or `sklearn:digits`.
        splits: {"train": names of one or more splits, "test": the name of one, "auto" or None}.
        image_size: side of the views in pixels.
        in_chans: channels of the views.
        mean: of each channel, for pixels in [0, 1].
        std: of each channel.
        batch_size: examples per global batch, over all processes.
        seed: of the order and the views.
        num_classes: checked if given.
        image_column: of a table; None: found by its type.
        label_column: of a table; None: found by its type.
        root: searched for `path`, as `$SSL_ZOO_DATA` is, before the Hub.
        store: where pixels are kept. "device", "ram" and "mmap" (a file) keep them decoded, image_size x image_size;
            "encoded" decodes each image in every epoch and crops from its full size. "auto" decodes images that are
            squares no larger than image_size, up to 8 GiB in all, and chooses the fastest memory with enough room.
        num_workers: processes that decode; None: one per processor core.
        on_error: "raise" or "skip" unreadable images.
        max_skipped: maximum fraction of a split that may be skipped.
        eval_examples: number of labelled images per split to evaluate on, a fixed stratified sample; None: all.
        bits: number of bits that 16-bit images use, so that 2^bits - 1 becomes white; None: 16, and images that would
            be nearly black raise an error.
    """

    def __init__(
        self,
        path: str,
        splits: Mapping[str, Any],
        image_size: int,
        in_chans: int,
        mean: Sequence[float],
        std: Sequence[float],
        batch_size: int,
        seed: int = 0,
        num_classes: int | None = None,
        image_column: str | None = None,
        label_column: str | None = None,
        root: str | None = None,
        store: str = "auto",
        num_workers: int | None = None,
        on_error: str = "raise",
        max_skipped: float = 0.01,
        eval_examples: int | None = None,
        bits: int | None = None,
    ):
        super().__init__()
        train = splits["train"]
        self.path = as_path(path)
        self.root = root
        self.splits = {"train": list(train) if isinstance(train, list | tuple) else [train], "test": splits["test"]}
        self.image_size = image_size
        self.in_chans = in_chans
        self.mean = list(mean)
        self.std = list(std)
        self.batch_size = batch_size
        self.seed = seed
        self.num_classes = num_classes
        self.image_column = image_column
        self.label_column = label_column
        self.other_columns: tuple[str, ...] = ()  # of a table: neither images nor labels
        self.store = store
        self.num_workers = num_workers
        self.eval_examples = eval_examples
        self.damage = Damage(on_error, max_skipped)
        self.bits = bits
        self._check_settings()
        self.start_step = 0  # global batches consumed before; set by the learner when it resumes
        # Filled by `setup`, the last four for each split.
        self.facts: dict[str, Any] = {}
        self.labels: dict[str, Tensor] = {}
        self.pixels: dict[str, Tensor] = {}
        self.encoded: dict[str, EncodedSplit] = {}
        self.rows: dict[str, np.ndarray] = {}  # positions in the source

    def _check_settings(self) -> None:
        if not all(isinstance(name, str) for name in self.splits["train"]):
            raise ValueError(f"data.splits.train={self.splits['train']}: give the name of a split, or a list of names")
        for key, value, allowed in (
            ("store", self.store, STORES),
            ("on_error", self.damage.on_error, ("raise", "skip")),
            ("bits", self.bits, (None, *range(9, 17))),
        ):
            if value not in allowed:
                raise ValueError(f"data.{key}={value}: give one of {', '.join(map(str, allowed))}")
        counts = {"image_size": 1, "in_chans": 1, "num_workers": 0, "eval_examples": 1}
        for key, minimum in counts.items():
            number = getattr(self, key)
            if number is None and key not in ("image_size", "in_chans"):
                continue
            if type(number) is not int:
                raise ValueError(f"data.{key}={number}: give a whole number, {minimum} or more")
            if number < minimum:
                raise ValueError(f"data.{key}={number}: give {minimum} or more")
        for key, values in (("mean", self.mean), ("std", self.std)):
            numbers = all(isinstance(value, int | float) for value in values)
            if not numbers or len(values) != self.in_chans or (key == "std" and min(values) <= 0):
                raise ValueError(f"data.{key}={values}: give data.in_chans={self.in_chans} numbers, std above 0")
        if not 0 <= self.damage.max_skipped < 1:
            raise ValueError(f"data.max_skipped={self.damage.max_skipped}: give a fraction from 0 to less than 1")

    def attach(self, views: Views, plain: Views) -> None:
        """Sets the views.

        Args:
            views: those of training.
            plain: the one view of evaluation.

        Raises:
            ValueError: for encoded images, when the views do not begin with a crop, or when the workers lack the shared
                memory to transfer them.
        """
        self.views = views
        self.plain = plain
        if self.store == "encoded":
            world_size = self.trainer.world_size if self.trainer else 1
            for kind in (views, plain):
                example_bytes = Crops(self.encoded["train"], kind, self.seed).example_bytes(self.image_size)
                check_shared_memory(example_bytes * self.batch_size // world_size, self._workers())

    def prepare_data(self) -> None:
        """Fetches, decodes and checks what is not in the cache yet, and prints a summary.

        Raises:
            ValueError: for data that is missing, unreadable or does not match the settings.
        """
        if not self.facts:
            self._open()

    def setup(self, stage: str | None = None) -> None:
        """Fills `facts`.

        Raises:
            ValueError: as `prepare_data`, or when the batch is larger than the training split.
        """
        if not self.facts:
            self._open()
        check_batch(self.num_train, self.batch_size, self.trainer.world_size if self.trainer else 1)

    @property
    def content(self) -> str:
        """A hash of the content of the source, whatever its place."""
        return self.source.fingerprint()

    @property
    def num_train(self) -> int:
        """Training examples, labelled or not."""
        return len(self.labels["train"])

    @property
    def rows_have_labels(self) -> bool:
        """Whether every training example has a label and several classes occur, as supervised methods need."""
        return self.has_labels and bool((self.labels["train"] >= 0).all())

    @property
    def has_labels(self) -> bool:
        """Whether at least two classes occur among the training examples; otherwise no accuracy is measured."""
        labels = self.labels["train"]
        return len(labels[labels >= 0].unique()) > 1

    def _open(self) -> None:
        columns = {"image_column": self.image_column, "label_column": self.label_column}
        source = self.source = open_images(self.path, self.root, **columns, other_columns=self.other_columns)

        @cache
        def opened() -> dict[str, ImageSplit]:
            return read_splits(source, self.splits["train"], self.splits["test"])

        key: Key = {"fingerprint": source.fingerprint(), "splits": self.splits, **columns}

        def used() -> list[str]:
            train, test = choose_splits(source.splits(), self.splits["train"], self.splits["test"])
            return [*train, test] if test else train

        # ---- What the data is, and whether it matches the settings ----
        known = catalogue(opened, key, self.in_chans, used)
        self._check_classes(known)
        self._check_range(known)

        # ---- Pixels and labels of the readable images ----
        self.store = choose_store(known, self.in_chans, self.image_size) if self.store == "auto" else self.store
        size = None if self.store == "encoded" else self.image_size
        folder, unreadable = read_once(opened, key, size, self.in_chans, self.damage, self._workers(), self.bits or 16)
        for name, known_labels in known.labels.items():
            positions = np.delete(np.arange(len(known_labels)), [entry.position for entry in unreadable[name]])
            self.rows[name] = positions
            self.labels[name] = torch.from_numpy(known_labels[positions])
            if size is None:
                images, labels = opened()[name].images, self.labels[name]
                self.encoded[name] = EncodedSplit(images, positions, labels, self.in_chans, self.bits or 16)
            else:
                self.pixels[name] = load_pixels(folder, name, size, self.in_chans, into_ram=self.store == "ram")
            if skipped := unreadable[name]:
                print_on_rank_zero(
                    f"skipped {len(skipped)} of {len(known_labels)} {name} images, unreadable, such as {skipped[0].why}"
                )

        # ---- Messages and facts ----
        if known.transparent:
            how = "is a channel" if self.in_chans in (2, 4) else "is composited on white"
            print_on_rank_zero(f"{self.path}: the transparency of some images {how}")
        for note in source.notes(known.splits):
            print_on_rank_zero(f"{self.path}: {note}")
        self.facts = self._describe(known.class_names, sum(map(len, unreadable.values())))

    def _check_classes(self, known: Catalogue) -> None:
        names = known.class_names
        if self.num_classes is not None and self.num_classes != len(names):
            raise ValueError(
                f"data.num_classes={self.num_classes}: {self.path} has {len(names)} "
                f"({abbreviate(names) or 'no labels'}). Give data.num_classes=null to take it as it is, "
                "or another data.label_column"
            )

    def _check_range(self, known: Catalogue) -> None:
        if self.bits is None and known.brightest is not None and known.brightest < BRIGHT:
            fitting = max(9, known.brightest.bit_length())
            raise ValueError(
                f"data.bits=null: the images of {self.path} have 16 bits, and their values go to {known.brightest:,} "
                f"only, so they would be nearly black. Give data.bits={fitting}, which makes {2**fitting - 1:,} white, "
                "or data.bits=16 to keep them as they are"
            )

    def _describe(self, class_names: list[str], num_skipped: int) -> dict[str, Any]:
        num_train, num_test = len(self.labels["train"]), len(self._eval_examples("test"))
        lacking = int((self.labels["test"] < 0).sum()) if self.has_labels and "test" in self.labels else 0
        unknown = f" ({lacking:,} more have no label)" if lacking else ""
        size = sum(pixels.numel() for pixels in self.pixels.values())
        kept = f"{size / 1e6:,.1f} MB of {self.image_size}x{self.image_size} pixels" if size else "decoded every epoch"
        print_on_rank_zero(
            f"{self.path}: {num_train:,} training and {num_test:,} test images{unknown}, "
            f"{describe_labels(self.labels['train'].numpy(), class_names)}; data.store={self.store} ({kept})"
        )
        return {
            "modality": "image",
            "num_classes": len(class_names),
            "class_names": class_names,
            "image_size": self.image_size,
            "half_size": self.image_size // 2,  # of local crops
            "in_chans": self.in_chans,
            "mean": self.mean,
            "std": self.std,
            "num_train": num_train,
            "num_indices": num_train,  # `Batch.indices` are below it
            "num_test": num_test,
            "has_labels": self.has_labels,
            "num_skipped": num_skipped,
        }

    @property
    def expected_facts(self) -> dict[str, Any]:
        """Facts that follow from the settings alone; counts are placeholders."""
        return {
            "modality": "image",
            "num_classes": self.num_classes or 2,
            "image_size": self.image_size,
            "half_size": self.image_size // 2,
            "in_chans": self.in_chans,
            "mean": self.mean,
            "std": self.std,
            "num_indices": 10_000,
        }

    def _workers(self) -> int:
        if self.num_workers is not None:
            return self.num_workers
        return max(1, (os.cpu_count() or 1) // (self.trainer.num_devices if self.trainer else 1))

    def train_dataloader(self) -> Iterable[Loaded]:
        """This process's share of every global batch from `start_step` on, without end."""
        if self.store == "encoded":
            return in_workers(
                Crops(self.encoded["train"], self.views, self.seed), RemainingSteps(self), self._workers()
            )
        pixels = None if self.store == "device" else self.pixels["train"]
        return ResidentLoader(RemainingSteps(self), pixels, self.labels["train"])

    def on_after_batch_transfer(self, batch: Loaded, dataloader_idx: int) -> Batch:
        """Computes the views on the device of the batch."""
        images, labels, indices, epoch = batch
        if images is None:
            self.pixels["train"] = self.pixels["train"].to(indices.device)  # only the first time
            images = self.pixels["train"].index_select(0, indices)
        views = self.views(images, indices, epoch, self.seed)
        return Batch(views, labels, indices)

    def eval_batches(self, split: str, batch_size: int, chosen: Tensor | None = None) -> Iterator[Batch]:
        """The labelled examples of a split in order, or all if there are no labels, or the `chosen` ones, plain."""
        device = self.trainer.strategy.root_device if self.trainer else torch.device("cpu")
        chosen = self._eval_examples(split) if chosen is None else chosen
        batches = [Step(0, rows.numpy()) for rows in chosen.split(batch_size) if len(rows)]
        for images, labels, indices, epoch in self._plain_loader(split, batches) if batches else ():
            assert images is not None
            indices = indices.to(device)
            images = [x.to(device) for x in images] if isinstance(images, list) else images.to(device)
            views = self.plain(images, indices, epoch, self.seed)
            yield Batch(views, labels.to(device), indices)

    def _plain_loader(self, split: str, batches: list[Step]) -> Iterable[Loaded]:
        if self.store == "encoded":
            crops = Crops(self.encoded[split], self.plain, self.seed)
            check_shared_memory(crops.example_bytes(self.image_size) * len(batches[0].indices), self._workers())
            return in_workers(crops, batches, self._workers())
        return ResidentLoader(batches, self.pixels[split], self.labels[split])

    def _eval_examples(self, split: str) -> Tensor:
        """Positions of the examples to evaluate on, (n,) int64."""
        labels = self.labels.get(split, torch.empty(0, dtype=torch.int64))
        known = (labels >= 0 if self.has_labels else torch.ones_like(labels)).nonzero().squeeze(1)
        if self.eval_examples is None:
            return known
        return known[torch.from_numpy(stratified(labels[known].numpy(), self.eval_examples))]
