"""The data module for images: source -> splits -> store (decoded, or encoded for workers) -> loader -> views."""

import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from ssl_zoo.data.image import stores
from ssl_zoo.data.image.checks import check_catalogue, check_image_settings
from ssl_zoo.data.image.loaders import (
    Crops,
    EncodedSplit,
    Loaded,
    RemainingBatches,
    ResidentLoader,
    check_shared_memory,
    in_workers,
)
from ssl_zoo.data.image.sources import open_images
from ssl_zoo.data.image.splits import ImageSplit, choose_splits, read_splits
from ssl_zoo.data.labels import describe_labels, limit_labels
from ssl_zoo.data.locate import as_path
from ssl_zoo.data.order import BatchShare, check_batch, stratified
from ssl_zoo.method import Batch
from ssl_zoo.views import Views

log = logging.getLogger(__name__)


class ImageData(LightningDataModule):
    """Images and labels as training views on the device, and in order as views of evaluation.

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
        heldout: fraction of each class that is held out as the test split where the data has none; see `read_splits`.
        labels_per_class: number of training labels to keep of each class; the others count as unknown. None: all.
        label_fraction: share of each class's training labels to keep. None: all.
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
        heldout: float | None = None,
        labels_per_class: int | None = None,
        label_fraction: float | None = None,
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
        self.damage = stores.Damage(on_error, max_skipped)
        self.bits = bits
        self.heldout = heldout
        self.labels_per_class = labels_per_class
        self.label_fraction = label_fraction
        check_image_settings(self)
        self.start_batch = 0  # global batches consumed before; set by the learner when it resumes
        # Filled by `setup`, the last four for each split.
        self.facts: dict[str, Any] = {}
        self.labels: dict[str, Tensor] = {}
        self.pixels: dict[str, Tensor] = {}
        self.encoded: dict[str, EncodedSplit] = {}
        self.rows: dict[str, np.ndarray] = {}  # positions in the source
        self.train_positions: np.ndarray | None = None  # of `train_on_labelled`

    def attach(self, views: Views, evaluation: Views) -> None:
        """Sets the views.

        Args:
            views: those of training.
            evaluation: those of evaluation.

        Raises:
            ValueError: for encoded images, when the views do not begin with a crop, or when the workers lack the shared
                memory to transfer them.
        """
        self.views = views
        self.evaluation_views = evaluation
        if self.store == "encoded":
            world_size = self.trainer.world_size if self.trainer else 1
            for kind in (views, evaluation):
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
        """Training examples, labelled or not, unless `train_on_labelled` has been called."""
        return len(self.labels["train"]) if self.train_positions is None else len(self.train_positions)

    @property
    def rows_have_labels(self) -> bool:
        """Whether every training example has a label and several classes occur, as supervised methods need."""
        return self.has_labels and (self.train_positions is not None or bool((self.labels["train"] >= 0).all()))

    def train_on_labelled(self) -> None:
        """Restricts training to the examples with a label; call it after `setup`.

        Raises:
            ValueError: when an epoch would have no full batch.
        """
        self.train_positions = (self.labels["train"] >= 0).nonzero().squeeze(1).numpy()
        check_batch(self.num_train, self.batch_size, self.trainer.world_size if self.trainer else 1)

    @property
    def has_labels(self) -> bool:
        """Whether at least two classes occur among the training examples; otherwise no accuracy is measured."""
        labels = self.labels["train"]
        return len(labels[labels >= 0].unique()) > 1

    def _open(self) -> None:
        columns = {"image_column": self.image_column, "label_column": self.label_column}
        source = self.source = open_images(self.path, self.root, **columns, other_columns=self.other_columns)
        key: stores.Key = {"fingerprint": source.fingerprint(), "splits": self.splits, **columns}

        @cache
        def open_splits() -> dict[str, ImageSplit]:
            return read_splits(source, self.splits["train"], self.splits["test"], self.heldout)

        if self.splits["test"] in (None, "auto"):
            key["heldout"] = self.heldout

        def splits_to_read() -> list[str]:
            train, test = choose_splits(source.splits(), self.splits["train"], self.splits["test"])
            return [*train, test] if test else train

        # ---- What the data is, and whether it matches the settings ----
        catalogue = stores.load_catalogue(open_splits, key, self.in_chans, splits_to_read)
        check_catalogue(self, catalogue)

        # ---- Pixels and labels of the readable images ----
        if self.store == "auto":
            self.store = stores.choose_store(catalogue, self.in_chans, self.image_size)
        size = None if self.store == "encoded" else self.image_size
        bits, workers = self.bits or 16, self._workers()
        folder, unreadable = stores.read_images(open_splits, key, size, self.in_chans, self.damage, workers, bits)
        for name, all_labels in catalogue.labels.items():
            positions = np.delete(np.arange(len(all_labels)), [entry.position for entry in unreadable[name]])
            self.rows[name] = positions
            labels = all_labels[positions]
            if name == "train":
                labels = limit_labels(labels, self.labels_per_class, self.label_fraction, self.seed)
            self.labels[name] = torch.from_numpy(labels)
            if size is None:
                images = open_splits()[name].images
                self.encoded[name] = EncodedSplit(images, positions, self.labels[name], self.in_chans, bits)
            else:
                self.pixels[name] = stores.load_pixels(folder, name, size, self.in_chans, into_ram=self.store == "ram")
            if skipped := unreadable[name]:
                count = f"{len(skipped)} of {len(all_labels)} {name} images"
                rank_zero_only(log.warning)("skipped %s, unreadable, such as %s", count, skipped[0].why)

        # ---- Messages and facts ----
        how = "is a channel" if self.in_chans in (2, 4) else "is composited on white"
        transparency = [f"the transparency of some images {how}"] if catalogue.transparent else []
        for note in [*transparency, *source.notes(catalogue.splits)]:
            rank_zero_only(log.info)("%s: %s", self.path, note)
        self.facts = self._describe(catalogue.class_names, sum(map(len, unreadable.values())))

    def _describe(self, class_names: list[str], num_skipped: int) -> dict[str, Any]:
        num_train, num_test = len(self.labels["train"]), len(self._eval_examples("test"))
        lacking = int((self.labels["test"] < 0).sum()) if self.has_labels and "test" in self.labels else 0
        unknown = f" ({lacking:,} more have no label)" if lacking else ""
        size = sum(pixels.numel() for pixels in self.pixels.values())
        kept = f"{size / 1e6:,.1f} MB of {self.image_size}x{self.image_size} pixels" if size else "decoded every epoch"
        rank_zero_only(log.info)(
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
            "num_indices": len(self.labels["train"]),  # `Batch.indices` are below it
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
        """This process's share of every global batch from `start_batch` on, without end."""
        if self.store == "encoded":
            return in_workers(
                Crops(self.encoded["train"], self.views, self.seed), RemainingBatches(self), self._workers()
            )
        pixels = None if self.store == "device" else self.pixels["train"]
        return ResidentLoader(RemainingBatches(self), pixels, self.labels["train"])

    def on_after_batch_transfer(self, batch: Loaded, dataloader_idx: int) -> Batch:
        """Computes the views on the device of the batch."""
        images, labels, indices, epoch = batch
        if images is None:
            self.pixels["train"] = self.pixels["train"].to(indices.device)  # only the first time
            images = self.pixels["train"].index_select(0, indices)
        views = self.views(images, indices, epoch, self.seed)
        return Batch(views, labels, indices)

    def eval_batches(self, split: str, batch_size: int, chosen: Tensor | None = None) -> Iterator[Batch]:
        """The labelled examples of a split in order, or all if there are no labels, or the `chosen` ones."""
        device = self.trainer.strategy.root_device if self.trainer else torch.device("cpu")
        chosen = self._eval_examples(split) if chosen is None else chosen
        batches = [BatchShare(0, rows.numpy()) for rows in chosen.split(batch_size) if len(rows)]
        for images, labels, indices, epoch in self._eval_loader(split, batches) if batches else ():
            assert images is not None
            indices = indices.to(device)
            images = [x.to(device) for x in images] if isinstance(images, list) else images.to(device)
            views = self.evaluation_views(images, indices, epoch, self.seed)
            yield Batch(views, labels.to(device), indices)

    def _eval_loader(self, split: str, batches: list[BatchShare]) -> Iterable[Loaded]:
        if self.store == "encoded":
            crops = Crops(self.encoded[split], self.evaluation_views, self.seed)
            check_shared_memory(crops.example_bytes(self.image_size) * len(batches[0].indices), self._workers())
            return in_workers(crops, batches, self._workers())
        return ResidentLoader(batches, self.pixels[split], self.labels[split])

    def _eval_examples(self, split: str) -> Tensor:
        """Positions of the examples to evaluate on, (n,) int64."""
        labels = self.labels.get(split, torch.empty(0, dtype=torch.int64))
        eligible = (labels >= 0 if self.has_labels else torch.ones_like(labels)).nonzero().squeeze(1)
        if self.eval_examples is None:
            return eligible
        return eligible[torch.from_numpy(stratified(labels[eligible].numpy(), self.eval_examples))]
