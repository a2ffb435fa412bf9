"""The data module for text: packed rows or padded documents for training, padded documents for evaluation."""

import json
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from ssl_zoo.data.cache import cached
from ssl_zoo.data.labels import describe_labels, limit_labels
from ssl_zoo.data.locate import as_path
from ssl_zoo.data.order import check_batch, check_shares, stratified, training_batches
from ssl_zoo.data.text.checks import check_text_settings
from ssl_zoo.data.text.corpus import Corpus, Survey, build_token_store, choose_corpus, survey
from ssl_zoo.data.text.documents import clean
from ssl_zoo.data.text.sources import open_texts
from ssl_zoo.data.text.token_store import TokenStore
from ssl_zoo.data.text.tokenizer import TextTokenizer, expected_tokens, prepare_tokenizer
from ssl_zoo.method import Batch
from ssl_zoo.views import Views
from ssl_zoo.views.text import Windows

log = logging.getLogger(__name__)


class TextRows(NamedTuple):
    """What the loader yields, before the views.

    Attributes:
        rows: (B, L) int64.
        labels: (B,) int64.
        indices: (B,) int64.
        epoch: of all rows.
    """

    rows: Tensor
    labels: Tensor
    indices: Tensor
    epoch: int


class TextData(LightningDataModule):
    """One corpus, tokenized once and memory-mapped.

    Args:
        batch_size: rows per step, over all processes.
        seed: of the order and the views.
        tokenizer: see `tokenizer.prepare_tokenizer`.
        splits: the splits of the source for each use: {"pretrain": [...], "train": ..., "test": ...}. By default train
            and pretrain are the split called "train", and test is "test", else "validation", in any spelling (Train,
            dev). Without a test split, `heldout` documents are held out as one. Test text is never trained on.
        row_length: tokens per packed row.
        max_length: tokens kept of a document that has its own row.
        train_rows: the rows of an epoch. "packed": all pretraining text without padding, a separator after each
            document, labels -1. "documents": each pretraining document in its own row, truncated and padded.
            "labelled": the same for the labelled documents of the train split. None: documents if a view is a window of
            one, else packed.
        heldout: see `corpus.Corpus`.
        eval_examples: number of labelled documents per split to evaluate on, a fixed stratified sample; None: all.
        eval_rows: maximum number of rows of `heldout_rows`.
        replace: see `documents.clean`.
        labels_per_class: number of training labels to keep of each class; the others count as unknown. None: all.
        label_fraction: share of each class's training labels to keep. None: all.
        source: see `sources.open_texts`.
    """

    def __init__(
        self,
        batch_size: int,
        seed: int,
        tokenizer: dict[str, Any],
        splits: dict[str, Any] | None = None,
        row_length: int = 128,
        max_length: int = 256,
        train_rows: str | None = None,
        heldout: float | None = None,
        eval_examples: int | None = None,
        eval_rows: int = 2048,
        replace: dict[str, str] | None = None,
        labels_per_class: int | None = None,
        label_fraction: float | None = None,
        **source: Any,
    ):
        super().__init__()
        self.batch_size = batch_size
        self.seed = seed
        self.row_length = row_length
        self.max_length = max_length
        self.train_rows = train_rows
        self._rows_are_open = train_rows is None
        self.heldout = heldout
        self.eval_examples = eval_examples
        self.eval_rows = eval_rows
        self.tokenizer_config = tokenizer
        self.splits = splits
        self.replace = replace or {}
        self.labels_per_class = labels_per_class
        self.label_fraction = label_fraction
        check_text_settings(self)
        self.path = source["path"] = as_path(source["path"])
        self.source = open_texts(**source)
        self.start_batch = 0  # global batches consumed before; set by the learner when it resumes
        self.views: Views
        self.tokenizer: TextTokenizer
        self.tokens: TokenStore | None = None
        self.facts: dict[str, Any] = {}

    def prepare_data(self) -> None:
        """Trains or loads the tokenizer, tokenizes the corpus and opens it, from the cache if possible.

        Raises:
            ValueError: for input that cannot be used (see `corpus.survey`).
        """
        if self.tokens is not None:
            return
        corpus = self._corpus()
        key = corpus.key()
        surveys: list[Survey] = []  # one pass over the documents serves both steps

        def sample(size: int) -> list[str]:
            surveys.append(survey(corpus, size))
            return surveys[0].sample

        self.tokenizer = prepare_tokenizer(sample, key, **self.tokenizer_config)

        def fill(folder: Path) -> None:
            build_token_store(folder, corpus, self.tokenizer, surveys[0] if surveys else survey(corpus))

        self.tokens = TokenStore(
            cached("text", {"version": 1, "tokenizer": self.tokenizer.identity, "corpus": key}, fill)
        )
        train = self.tokens.labels[slice(self.tokens.splits["train"].start, self.tokens.splits["train"].stop)]
        train[:] = limit_labels(train, self.labels_per_class, self.label_fraction, self.seed)

    def _corpus(self) -> Corpus:
        return choose_corpus(self.source, self.splits, self.heldout, self.replace)

    def setup(self, stage: str | None = None) -> None:
        """Opens the corpus if necessary and fills `facts`.

        Raises:
            ValueError: as `prepare_data`.
        """
        if self.facts:
            return
        self.prepare_data()
        tokens, tokenizer = self.tokens, self.tokenizer
        assert tokens is not None
        self._describe(tokens)
        names = tokens.class_names if self._has_labels else []
        self.facts = {
            "modality": "text",
            "vocab_size": tokenizer.vocab_size,
            "pad_id": tokenizer.pad_id,
            "unk_id": tokenizer.unk_id,
            "cls_id": tokenizer.cls_id,
            "sep_id": tokenizer.sep_id,
            "mask_id": tokenizer.mask_id,
            "num_special": tokenizer.num_special,
            "word_starts": "".join("01"[start] for start in tokenizer.word_starts.astype(int)),
            "tokenizer_hash": tokenizer.identity,
            "max_length": max(self.row_length, self.max_length),
            "num_classes": len(names),
            "class_names": names,
            "num_train": len(self._eval_documents("train")),
            "num_test": len(self._eval_documents("test")),
            "num_indices": max(len(tokens.labels), tokens.num_rows(self.row_length)),
            "num_tokens": int(tokens.counts.sum()),
            "has_labels": self._has_labels,
            **(
                tokens.baselines(self.heldout_rows().numpy(), tokenizer.num_special)
                if len(tokens.splits["test"])
                else {}
            ),
        }

    def _describe(self, tokens: TokenStore) -> None:
        """Logs what was read and what was not."""
        corpus = self._corpus()
        for note in self.source.notes(corpus.splits()):
            rank_zero_only(log.info)("%s: %s", self.path, note)
        splits = {split: np.arange(ends.start, ends.stop) for split, ends in tokens.splits.items()}
        training = np.union1d(splits["pretrain"], splits["train"])
        unknown = bool(len(splits["test"]) and len(tokens.labelled("train")) and not len(tokens.labelled("test")))
        rank_zero_only(log.info)(
            f"{self.path}: {len(training):,} training and {len(splits['test']):,} test documents"
            f"{' without a label' * unknown}, "
            f"{tokens.dropped:,} empty ones left out, {tokens.starts[-1]:,} tokens; "
            f"{describe_labels(tokens.labels[training], tokens.class_names)}"
        )

    @property
    def content(self) -> str:
        """Identifies the content of the source, whatever its place."""
        return json.dumps(self._corpus().key(), sort_keys=True)

    @property
    def expected_facts(self) -> dict[str, Any]:
        """Facts that follow from the settings alone; counts are placeholders."""
        longest = max(self.row_length, self.max_length)
        counts = {"num_classes": 2, "num_indices": 10_000, "max_length": longest}
        return {"modality": "text", **expected_tokens(self.tokenizer_config), **counts}

    @property
    def _has_labels(self) -> bool:
        """Whether at least two classes occur among the training documents, and some test documents have a label."""
        known = self._tokens.labels[self._tokens.labelled("train")]
        return len(np.unique(known)) > 1 and len(self._tokens.labelled("test")) > 0

    @property
    def _tokens(self) -> TokenStore:
        assert self.tokens is not None, "setup() comes first"
        return self.tokens

    def attach(self, views: Views, evaluation: Views | None = None) -> None:
        """Sets the views of training. Text needs no plain ones: documents are evaluated as they are.

        Raises:
            ValueError: when an epoch would have no full batch, or for `train_rows: labelled` without labels.
        """
        self.views = views
        if self._rows_are_open:
            windows = any(isinstance(op, Windows) for ops in views.pipelines for op in ops)
            self.train_rows = "documents" if windows else "packed"
        if self.train_rows == "labelled" and not self.facts["has_labels"]:
            raise ValueError(
                "data.train_rows=labelled: this data has no labels. Name their column as data.label_column, or give "
                "packed or documents"
            )
        check_batch(self.num_train, self.batch_size, world_size=1)

    @property
    def num_train(self) -> int:
        """Rows per epoch; known after `attach`."""
        if self.train_rows == "packed":
            return self._tokens.num_rows(self.row_length)
        return len(self._train_documents())

    @property
    def rows_have_labels(self) -> bool:
        """Whether every training row has a label, as supervised methods need; known after `attach`."""
        return self.train_rows != "packed" and bool((self._tokens.labels[self._train_documents()] >= 0).all())

    def train_on_labelled(self) -> None:
        """Restricts training to the labelled documents, unless data.train_rows says otherwise; call it after `attach`.

        Raises:
            ValueError: when an epoch would have no full batch.
        """
        if self._rows_are_open:
            self.train_rows = "labelled"
        check_batch(self.num_train, self.batch_size, world_size=1)

    def _train_documents(self) -> np.ndarray:
        if self.train_rows == "labelled":
            return self._tokens.labelled("train")
        return np.arange(self._tokens.splits["pretrain"].stop)

    def train_dataloader(self) -> "TextStream":
        """This process's share of each batch from `start_batch` on, without end. Batches are too cheap for workers."""
        return TextStream(self)

    def train_rows_from(self, start_batch: int) -> Iterator[TextRows]:
        """This process's rows of each batch from `start_batch` on."""
        rank, world_size = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        packed, documents = self.train_rows == "packed", self._train_documents()
        check_shares(self.batch_size, world_size)
        share = self.batch_size // world_size
        own = slice(rank * share, (rank + 1) * share)
        for epoch, batch in training_batches(self.num_train, self.batch_size, self.seed, start_batch):
            positions = batch[own]
            if packed:
                # Another offset in each epoch, so that no word is always at the edge of a row.
                offset = int(np.random.default_rng((self.seed, epoch, 1)).integers(self.row_length))
                rows = self._tokens.packed(positions, self.row_length, offset)
                labels = np.full(len(positions), -1, dtype=np.int64)
            else:
                positions = documents[positions]
                # Random numbers of a step are those of the global batch: all processes pad to its longest document.
                longest = self._tokens.longest(documents[batch], self.max_length, multiple=8)
                rows = self._tokens.padded(positions, longest, self.tokenizer.pad_id, multiple=longest)
                labels = self._tokens.labels[positions]
            yield TextRows(torch.from_numpy(rows), torch.from_numpy(labels), torch.from_numpy(positions), epoch)

    def on_after_batch_transfer(self, batch: TextRows, dataloader_idx: int) -> Batch:
        """Computes the views on the device."""
        views = self.views(batch.rows, batch.indices, batch.epoch, self.seed)
        return Batch(views, batch.labels, batch.indices)

    def eval_batches(self, split: str, batch_size: int) -> Iterator[Batch]:
        """Each labelled document of a split once, or all documents if the data has no labels, as one view (B, L) int64.

        Documents are truncated to `max_length` tokens and come in batches of similar length, which need little padding;
        `indices` identifies them. Without labels the "train" split is the pretraining text.
        """
        for documents in self._tokens.buckets(self._eval_documents(split), batch_size, self.max_length):
            rows = self._tokens.padded(documents, self.max_length, self.tokenizer.pad_id)
            view, labels, indices = map(torch.from_numpy, (rows, self._tokens.labels[documents], documents))
            yield Batch([view], labels, indices)

    def _eval_documents(self, split: str) -> np.ndarray:
        if self._has_labels:
            documents = self._tokens.labelled(split)
        else:
            found = self._tokens.splits["pretrain" if split == "train" else split]
            documents = np.arange(found.start, found.stop)
        if self.eval_examples is None:
            return documents
        return documents[stratified(self._tokens.labels[documents], self.eval_examples)]

    def tokenise(self, texts: Sequence[str]) -> Tensor:
        """Token ids of n texts, (n, L) int64, as documents are evaluated: cleaned, at most `max_length` tokens each."""
        rows = self.tokenizer.encode_rows([clean(text, self.replace) for text in texts], self.max_length)
        longest = max(1, int((rows != self.tokenizer.pad_id).any(axis=0).sum()))
        return torch.from_numpy(rows[:, :longest])

    def heldout_rows(self) -> Tensor:
        """Packed rows of text that was never trained on, (N, row_length) int64, N <= eval_rows, the same in all runs.

        Raises:
            ValueError: when the held-out text is shorter than one row.
        """
        rows = self._tokens.heldout(self.row_length, self.eval_rows)
        if not len(rows):
            share = "null" if self.heldout is None else self.heldout
            raise ValueError(
                f"data.heldout={share}: the text held out of training is shorter than one row, "
                f"data.row_length={self.row_length} tokens. Give a larger fraction or shorter rows"
            )
        return torch.from_numpy(rows)


class TextStream:
    """The training rows of `data`, from its `start_batch` at the time when iteration begins."""

    def __init__(self, data: TextData):
        self.data = data

    def __iter__(self) -> Iterator[TextRows]:
        return self.data.train_rows_from(self.data.start_batch)
