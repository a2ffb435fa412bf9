"""The data module for images with captions: as `ImageData`, with a caption of each training image as the last view."""

import logging
from collections.abc import Iterable, Sequence
from functools import cache
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ssl_zoo.data.cache import cached
from ssl_zoo.data.image.lists import Listed
from ssl_zoo.data.image.module import ImageData
from ssl_zoo.data.image.sources import ImageTables
from ssl_zoo.data.image.splits import choose_splits, read_splits
from ssl_zoo.data.text.tokenizer import TextTokenizer, expected_tokens, prepare_tokenizer
from ssl_zoo.views import Views
from ssl_zoo.views.keyed_random import KeyedRandom

log = logging.getLogger(__name__)

CAPTIONS_PER_CHUNK = 50_000
"""Captions tokenized at a time, which bounds the memory."""


class Captions:
    """Token ids of M captions of N images: one table, a few bytes per token, that moves to the device once.

    Args:
        ids: (M, L) int16 or int32; the captions of an image are consecutive.
        first: (N,) int64, the first caption of each image.
        count: (N,) int64, the number of captions of each image.
    """

    def __init__(self, ids: Tensor, first: Tensor, count: Tensor):
        self.ids = ids
        self.first = first
        self.count = count

    def sample(self, indices: Tensor, random: KeyedRandom) -> Tensor:
        """Samples one caption of each of the images `indices` (B,); returns (B, L) int64."""
        self.ids = self.ids.to(indices.device)
        self.first = self.first.to(indices.device)
        self.count = self.count.to(indices.device)
        number = (random.uniform(1).squeeze(1) * self.count[indices]).long()
        return self.ids[self.first[indices] + number].long()


class PairViews(Views):
    """The views of an image, and then one of its captions, sampled again in each epoch."""

    def __init__(self, images: Views, captions: Captions):
        super().__init__(images.pipelines)
        self.images = images
        self.captions = captions

    def __len__(self) -> int:
        return len(self.images) + 1

    def compile(self) -> None:
        """Compiles the views of the image."""
        self.images.compile()

    @torch.no_grad()
    def __call__(self, images: Tensor | list[Tensor], indices: Tensor, epochs: Tensor | int, seed: int) -> list[Tensor]:
        """The views, (B, C, S, S) float32 each, and the caption, (B, L) int64; arguments as for `Views`."""
        made = self.images(images, indices, epochs, seed)
        return [*made, self.captions.sample(indices, KeyedRandom(seed, epochs, indices, len(made)))]


class PairData(ImageData):
    """Images with captions. Evaluation, order, resumption and the shares of processes are those of images.

    Args:
        tokenizer: see `tokenizer.prepare_tokenizer`; trained on the captions of the training split.
        max_length: tokens per caption; longer ones are truncated, shorter ones padded.
        caption_column: of a table, contains a text or a list of texts per image; an empty text counts as a caption.
        templates: instead of captions, sentences such as "a photo of a {}", completed with the name of the image's
            class; image i gets template i modulo their number. Such pairs are synthetic, for trying things out.
        heldout: 0, as captions are not divided.
        images: all other settings of `ImageData`.
    """

    def __init__(
        self,
        tokenizer: dict[str, Any],
        max_length: int,
        caption_column: str | None = None,
        templates: Sequence[str] | None = None,
        heldout: float | None = 0,
        **images: Any,
    ):
        super().__init__(heldout=heldout, **images)
        if heldout != 0:
            raise ValueError(
                f"data.heldout={heldout}: no images with captions can be held out. Give 0, and a test split as "
                "data.splits.test"
            )
        if (caption_column is None) == (not templates):
            raise ValueError(
                f"data.caption_column={caption_column}, data.templates={templates}: give exactly one of the two"
            )
        if wrong := [template for template in templates or () if "{}" not in template]:
            raise ValueError(f"data.templates: {wrong[0]!r} has no place {{}} for the name of the class")
        if not isinstance(max_length, int) or max_length < 1:
            raise ValueError(f"data.max_length={max_length}: give a whole number of at least 1")
        self.tokenizer_config = tokenizer
        self.max_length = max_length
        self.caption_column = caption_column
        self.templates = list(templates or ())
        self.other_columns = (caption_column,) if caption_column else ()
        self.tokenizer: TextTokenizer
        self.captions: Captions

    def attach(self, views: Views, evaluation: Views) -> None:
        """As in `ImageData`; `views` are those of the image."""
        super().attach(PairViews(views, self.captions), evaluation)

    def tokenise(self, texts: Sequence[str]) -> Tensor:
        """Token ids of n texts, (n, max_length) int64, truncated and padded at the end."""
        return torch.from_numpy(self.tokenizer.encode_rows(texts, self.max_length))

    def eval_captions(self, split: str) -> tuple[Tensor, Tensor]:
        """The captions of the images that `eval_batches` gives; empty ones are left out.

        Args:
            split: "train" or "test".

        Returns:
            Token ids (M, max_length) int64, and the index (M,) int64 of the image that each belongs to.

        Raises:
            ValueError: when the captions are made from templates, or the split has no column of them.
        """
        if self.caption_column is None:
            raise ValueError(
                "data.caption_column=null: the captions of this data are made from the names of classes, so they "
                "cannot be retrieved. Give a column of captions, or leave retrieval out of evaluators"
            )
        texts = self._from_column(self.caption_column, split)
        captions = [(text, i) for i in self._eval_examples(split).tolist() for text in texts[self.rows[split][i]]]
        captions = [(text, i) for text, i in captions if text.strip()]
        return self.tokenise([text for text, _ in captions]), torch.tensor([i for _, i in captions], dtype=torch.int64)

    def _open(self) -> None:
        super()._open()
        texts = cache(self._texts)  # read only if the cache holds no tokenizer or no tokens
        key: dict[str, Any] = {"fingerprint": self.source.fingerprint(), "splits": self.splits["train"]}
        key |= {"caption_column": self.caption_column, "templates": self.templates, "label_column": self.label_column}
        self.tokenizer = prepare_tokenizer(lambda size: _sample(texts(), size), key, **self.tokenizer_config)
        key |= {"version": 1, "tokenizer": self.tokenizer.identity, "max_length": self.max_length}
        folder = cached("captions", key, lambda folder: self._tokenise_all(texts(), folder))
        # mode "c" is copy-on-write: torch needs writable memory
        ids = torch.from_numpy(np.load(folder / "ids.npy", mmap_mode="c"))
        ends, rows = torch.from_numpy(np.load(folder / "ends.npy")), torch.from_numpy(self.rows["train"])
        self.captions = Captions(ids, ends[rows], ends[rows + 1] - ends[rows])
        if empty := int((ids[:, 0] == self.tokenizer.pad_id).sum()):
            log.warning("%d of %d captions are empty", empty, len(ids))
        self.facts |= {
            "vocab_size": self.tokenizer.vocab_size,
            "pad_id": self.tokenizer.pad_id,
            "sep_id": self.tokenizer.sep_id,
            "num_special": self.tokenizer.num_special,
            "tokenizer_hash": self.tokenizer.identity,
            "max_length": self.max_length,
            "num_captions": int(self.captions.count.sum()),
        }

    @property
    def expected_facts(self) -> dict[str, Any]:
        """Facts of images, and those that a text backbone needs."""
        return super().expected_facts | expected_tokens(self.tokenizer_config) | {"max_length": self.max_length}

    def _texts(self) -> list[list[str]]:
        """At least one caption per row of the training splits, readable or not; raises ValueError if all are empty."""
        texts = (
            self._from_templates() if self.caption_column is None else self._from_column(self.caption_column, "train")
        )
        if not any(map(any, texts)):
            raise ValueError(f"data.caption_column={self.caption_column}: all captions are empty. Give another column")
        return texts

    def _from_column(self, column: str, split: str) -> list[list[str]]:
        """The captions of each row of the training splits, or of the test split."""
        source = self.source
        if not isinstance(source, ImageTables | Listed):
            raise ValueError(
                f"data.caption_column={column}: {self.path} is no table. Give a hub id, a parquet file, or a folder of "
                "images with a metadata.csv or metadata.jsonl (file_name and the caption of each)"
            )
        texts: list[list[str]] = []
        train, test = choose_splits(source.splits(), self.splits["train"], self.splits["test"])
        for name in train if split == "train" else filter(None, [test]):
            texts += (_captions(column, value) for value in source.captions(name, column))
        return texts

    def _from_templates(self) -> list[list[str]]:
        train = read_splits(self.source, self.splits["train"], None)["train"]
        if not len(train.classes) or (train.labels < 0).any():
            raise ValueError(
                f"data.templates: not all training images of {self.path} have a class to name. "
                "Give other data.splits.train or data.label_column, or data.caption_column and data.templates=null"
            )
        templates = (self.templates[i % len(self.templates)] for i in range(len(train.labels)))
        return [
            [template.replace("{}", train.classes[label])]
            for template, label in zip(templates, train.labels, strict=True)
        ]

    def _tokenise_all(self, texts: list[list[str]], folder: Path) -> None:
        """Writes the ids of all captions, (M, L), and where the captions of each row begin and end, (N + 1,)."""
        flat = [text for captions in texts for text in captions]
        dtype = np.int16 if self.tokenizer.vocab_size <= 2**15 else np.int32
        chunks = [flat[start : start + CAPTIONS_PER_CHUNK] for start in range(0, len(flat), CAPTIONS_PER_CHUNK)]
        np.save(folder / "ids.npy", np.concatenate([self.tokenise(chunk).numpy().astype(dtype) for chunk in chunks]))
        np.save(folder / "ends.npy", np.array(list(accumulate(map(len, texts), initial=0)), dtype=np.int64))


def _captions(column: str, value: Any) -> list[str]:
    """The captions in a cell of the column, at least one; an empty cell is an empty caption."""
    values = value if isinstance(value, list) else [value]
    if wrong := [each for each in values if not isinstance(each, str | None)]:
        raise ValueError(f"data.caption_column={column}: holds {wrong[0]!r}, which is no text")
    return [each or "" for each in values] or [""]


def _sample(texts: Iterable[list[str]], size: int) -> list[str]:
    """Samples captions of about `size` characters in all."""
    flat = [text for captions in texts for text in captions]
    order = np.random.default_rng(0).permutation(len(flat))
    ends = np.cumsum([len(flat[i]) for i in order])
    return [flat[i] for i in order[: np.searchsorted(ends, size) + 1]]
