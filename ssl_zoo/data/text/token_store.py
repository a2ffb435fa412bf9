"""Documents as one flat array of token ids, memory-mapped, and the rows and batches cut from it.

Letters: N tokens, D documents, V vocabulary, B rows, L tokens a row.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

LIKE = 0.9
"""Documents of like length have at least this share of the longest one's tokens."""


class TokenStore:
    """What `corpus.build` has written to `folder`.

    ids (N,) uint16 or uint32: one document after another, each followed by the separator.
    starts (D + 1,) int64: where each document begins in `ids`; labels (D,) int64, -1 unknown; hashes (D,) uint64.
    counts (V,) int64: how often each id occurs in the pretraining text.
    parts: the documents of "pretrain", "train" and "test"; the first two may overlap, the last overlaps neither.
    class_names: of the labels; dropped: how many documents were empty.
    """

    def __init__(self, folder: Path):
        about = json.loads((folder / "about.json").read_text(encoding="utf-8"))
        self.ids = np.asarray(np.memmap(folder / "ids.bin", dtype=about["dtype"], mode="r"))
        self.starts = np.load(folder / "starts.npy", mmap_mode="r")
        self.labels = np.load(folder / "labels.npy")
        self.hashes = np.load(folder / "hashes.npy")
        self.counts = np.load(folder / "counts.npy")
        self.parts = {part: range(*ends) for part, ends in about["parts"].items()}
        self.class_names: list[str] = about["class_names"]
        self.dropped: int = about["dropped"]

    def document(self, index: int) -> np.ndarray:
        """The ids of one document, without its separator, (length,)."""
        return self.ids[self.starts[index] : self.starts[index + 1] - 1]

    def lengths(self, documents: np.ndarray) -> np.ndarray:
        """Tokens of each document, without its separator, (B,)."""
        return self.starts[documents + 1] - self.starts[documents] - 1

    def labelled(self, part: str) -> np.ndarray:
        """The documents of a part whose label is known, (n,) int64."""
        documents = np.arange(self.parts[part].start, self.parts[part].stop)
        return documents[self.labels[documents] >= 0]

    def num_rows(self, length: int) -> int:
        """Rows of `length` tokens in the pretraining text."""
        return int(self.starts[self.parts["pretrain"].stop]) // length

    def packed(self, rows: np.ndarray, length: int, offset: int) -> np.ndarray:
        """Rows of the pretraining text without any padding, (B, length) int64.

        Row r holds the tokens from `offset + r * length` on, the text taken as a ring. So the rows of one offset hold
        no token twice, and leave out fewer than `length`.
        """
        text = self.ids[: self.starts[self.parts["pretrain"].stop]]
        positions = offset + rows[:, None] * length + np.arange(length)
        return text.take(positions, mode="wrap").astype(np.int64)

    def longest(self, documents: np.ndarray, max_length: int, multiple: int = 1) -> int:
        """Tokens of the longest document, raised to a multiple of `multiple` so that there are few shapes, and at most
        `max_length`."""
        return min(-(-int(self.lengths(documents).max()) // multiple) * multiple, max_length)

    def padded(self, documents: np.ndarray, max_length: int, pad_id: int, multiple: int = 1) -> np.ndarray:
        """One document a row, cut after `max_length` tokens, (B, L) int64.

        L is `longest` of them.
        """
        lengths = np.minimum(self.lengths(documents), max_length)
        width = self.longest(documents, max_length, multiple)
        rows = np.full((len(documents), width), pad_id, dtype=np.int64)
        for row, document, length in zip(rows, documents, lengths, strict=True):
            row[:length] = self.document(document)[:length]
        return rows

    def buckets(self, documents: np.ndarray, batch_size: int, max_length: int) -> Iterator[np.ndarray]:
        """The documents in batches of at most `batch_size` and of like length, longest first."""
        lengths = np.minimum(self.lengths(documents), max_length)
        order = lengths.argsort(kind="stable")
        documents, lengths = documents[order], lengths[order]
        end = len(documents)
        while end > 0:
            like = int(np.searchsorted(lengths, LIKE * lengths[end - 1]))
            start = max(end - batch_size, like)
            yield documents[start:end]
            end = start

    def heldout(self, length: int, limit: int) -> np.ndarray:
        """The first `limit` packed rows of the test part, (n, length) int64.

        Its documents come in the order of their hashes, which mixes the classes; documents with a twin in the
        pretraining text are left out.
        """
        test, pretrain = self.parts["test"], self.parts["pretrain"]
        documents = np.arange(test.start, test.stop)
        seen = np.isin(self.hashes[documents], self.hashes[pretrain.start : pretrain.stop])
        documents = documents[~seen]
        documents = documents[self.hashes[documents].argsort(kind="stable")]
        needed = int(np.searchsorted((self.lengths(documents) + 1).cumsum(), limit * length)) + 1
        pieces = [self.ids[self.starts[d] : self.starts[d + 1]] for d in documents[:needed]]
        text = np.concatenate(pieces) if pieces else self.ids[:0]
        rows = min(len(text) // length, limit)
        return text[: rows * length].reshape(rows, length).astype(np.int64)
