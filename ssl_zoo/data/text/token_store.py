"""Documents as one flat array of token ids, memory-mapped, and the rows and batches taken from it.

Letters: N tokens, D documents, V vocabulary, B rows, L tokens per row.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

MIN_LENGTH_RATIO = 0.9
"""A bucket holds documents with at least this share of the tokens of its longest one."""


class TokenStore:
    """The token ids that `corpus.build_token_store` has written to `folder`.

    Attributes:
        ids: (N,) uint16 or uint32, one document after another, each followed by the separator.
        starts: (D + 1,) int64, where each document begins in `ids`.
        labels: (D,) int64, -1 where unknown.
        hashes: (D,) uint64, of the texts.
        counts: (V,) int64, how often each id occurs in the pretraining text.
        splits: ranges of the documents of "pretrain", "train" and "test"; only the first two may overlap.
        class_names: by label.
        dropped: number of empty documents.
    """

    def __init__(self, folder: Path):
        about = json.loads((folder / "about.json").read_text(encoding="utf-8"))
        self.ids = np.asarray(np.memmap(folder / "ids.bin", dtype=about["dtype"], mode="r"))
        self.starts = np.load(folder / "starts.npy", mmap_mode="r")
        self.labels = np.load(folder / "labels.npy")
        self.hashes = np.load(folder / "hashes.npy")
        self.counts = np.load(folder / "counts.npy")
        self.splits = {split: range(*ends) for split, ends in about["parts"].items()}
        self.class_names: list[str] = about["class_names"]
        self.dropped: int = about["dropped"]

    def document(self, index: int) -> np.ndarray:
        """The ids of one document, (length,), without its separator."""
        return self.ids[self.starts[index] : self.starts[index + 1] - 1]

    def lengths(self, documents: np.ndarray) -> np.ndarray:
        """Tokens of each document, (B,), without its separator."""
        return self.starts[documents + 1] - self.starts[documents] - 1

    def labelled(self, split: str) -> np.ndarray:
        """The documents of a split whose label is known, (n,) int64."""
        documents = np.arange(self.splits[split].start, self.splits[split].stop)
        return documents[self.labels[documents] >= 0]

    def num_rows(self, length: int) -> int:
        """Number of rows of `length` tokens in the pretraining text."""
        return int(self.starts[self.splits["pretrain"].stop]) // length

    def packed(self, rows: np.ndarray, length: int, offset: int) -> np.ndarray:
        """Rows of the pretraining text without any padding.

        Row r contains the tokens from `offset + r * length` on; the text is treated as circular. So the rows of one
        offset contain no token twice, and leave out fewer than `length`.

        Args:
            rows: (B,) int64, numbers of rows.
            length: tokens per row.
            offset: where row 0 begins.

        Returns:
            (B, length) int64.
        """
        text = self.ids[: self.starts[self.splits["pretrain"].stop]]
        positions = offset + rows[:, None] * length + np.arange(length)
        return text.take(positions, mode="wrap").astype(np.int64)

    def longest(self, documents: np.ndarray, max_length: int, multiple: int = 1) -> int:
        """Tokens of the longest document, rounded up to a multiple of `multiple`, and at most `max_length`.

        Rounding keeps the number of different shapes small.
        """
        return min(-(-int(self.lengths(documents).max()) // multiple) * multiple, max_length)

    def padded(self, documents: np.ndarray, max_length: int, pad_id: int, multiple: int = 1) -> np.ndarray:
        """One document per row, truncated to `max_length` tokens and padded to `longest`: (B, L) int64."""
        lengths = np.minimum(self.lengths(documents), max_length)
        width = self.longest(documents, max_length, multiple)
        rows = np.full((len(documents), width), pad_id, dtype=np.int64)
        for row, document, length in zip(rows, documents, lengths, strict=True):
            row[:length] = self.document(document)[:length]
        return rows

    def buckets(self, documents: np.ndarray, batch_size: int, max_length: int) -> Iterator[np.ndarray]:
        """Batches of at most `batch_size` documents of similar length, longest first."""
        lengths = np.minimum(self.lengths(documents), max_length)
        order = lengths.argsort(kind="stable")
        documents, lengths = documents[order], lengths[order]
        end = len(documents)
        while end > 0:
            first = int(np.searchsorted(lengths, MIN_LENGTH_RATIO * lengths[end - 1]))
            start = max(end - batch_size, first)
            yield documents[start:end]
            end = start

    def heldout(self, length: int, limit: int) -> np.ndarray:
        """The first `limit` packed rows of the test split, (n, length) int64.

        Its documents come in the order of their hashes, which mixes the classes; documents that also occur in the
        pretraining text are left out.
        """
        test, pretrain = self.splits["test"], self.splits["pretrain"]
        documents = np.arange(test.start, test.stop)
        seen = np.isin(self.hashes[documents], self.hashes[pretrain.start : pretrain.stop])
        documents = documents[~seen]
        documents = documents[self.hashes[documents].argsort(kind="stable")]
        needed = int(np.searchsorted((self.lengths(documents) + 1).cumsum(), limit * length)) + 1
        pieces = [self.ids[self.starts[d] : self.starts[d + 1]] for d in documents[:needed]]
        text = np.concatenate(pieces) if pieces else self.ids[:0]
        rows = min(len(text) // length, limit)
        return text[: rows * length].reshape(rows, length).astype(np.int64)

    def baselines(self, rows: np.ndarray, num_special: int) -> dict[str, float]:
        """What predicting each token of `rows` (N, L) int64 by its frequency in the training text alone would reach.

        Args:
            rows: held-out text.
            num_special: ids below it are special, and are neither counted nor predicted.
        """
        counts = self.counts.copy()
        counts[:num_special] = 0
        targets = rows[rows >= num_special]
        share = (counts[targets] + 1) / (counts.sum() + len(counts) - num_special)  # so that none is impossible
        return {
            "majority_token_top1": float((targets == counts.argmax()).mean()),
            "unigram_perplexity": float(np.exp(-np.log(share).mean())),
        }
