"""From documents to token ids on disk: one pass to see what there is, one to tokenize it."""

import hashlib
import heapq
import json
from array import array
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ssl_zoo.data.labels import sort_names
from ssl_zoo.data.text.documents import clean
from ssl_zoo.data.text.sources import TextSource
from ssl_zoo.data.text.tokenizer import TextTokenizer

DOCUMENTS_PER_CHUNK = 2_000_000
"""Characters tokenized at a time: what bounds the memory."""
ENOUGH_HELD_OUT = 1000
"""Documents to evaluate on by default: the 95 % interval of an accuracy is then about ± 3 points."""
MOST_UNKNOWN = 0.2
"""A larger share of unknown tokens means that the tokenizer was made for another language."""


class Text(NamedTuple):
    """A clean document, perhaps empty. hash: 64 bits, of the text; label: its class, None where unknown."""

    text: str
    label: str | None
    hash: int


class Corpus(NamedTuple):
    """A source and the use that is made of it.

    pretrain: splits whose text is trained on; train, test: splits whose labels are used, if there are any.
    heldout: when `test` is None, this fraction of the documents of each class, chosen by their content, is the test
        part instead; None: `ENOUGH_HELD_OUT` documents, but at least 1 % and at most 20 %, of those with labels and of
        those without.
    replace: see `documents.clean`.
    """

    source: TextSource
    pretrain: list[str]
    train: str | None
    test: str | None
    heldout: float | None
    replace: dict[str, str]

    def key(self) -> dict[str, object]:
        """JSON values that determine all texts and their parts."""
        heldout = {"share": self.heldout, "version": 2} if self.test is None else 0
        return {**self._asdict(), "heldout": heldout, "source": self.source.key()}

    def splits(self) -> list[str]:
        """Each split once, in the order that leaves the pretraining text, the train and the test part in one piece."""
        others = [split for split in self.pretrain if split != self.train]
        return [*others, *([self.train] if self.train else []), *([self.test] if self.test else [])]

    def texts(self, split: str) -> Iterator[Text]:
        for document in self.source.read(split, labelled=split in (self.train, self.test)):
            text = clean(document.text, self.replace)
            digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
            yield Text(text, document.label, int.from_bytes(digest))


class Survey(NamedTuple):
    """What a corpus holds. sample: texts to train a tokenizer on; class_names: those of the train part, in order.

    held_out: hashes of the documents that are the test part where no split is, so that equal documents are on the same
        side in whatever order they come.
    """

    num_documents: int
    class_names: list[str]
    sample: list[str]
    held_out: frozenset[int]


def survey(corpus: Corpus, sample_bytes: int = 0) -> Survey:
    """Reads everything once. The sample is drawn by hash from all pretraining text: the same in whatever order.

    Raises: ValueError for splits that are not there, a split or part without text, a class only in the test part.
    """
    _check_splits(corpus)
    total = 0
    hashes: dict[str, dict[str | None, array]] = {"train": {}, "test": {}}  # of documents with text, by part and class
    sample: list[tuple[int, str]] = []  # a heap, the text with the largest hash on top
    size = 0
    for split in corpus.splits():
        for text in corpus.texts(split):
            total += 1
            if not text.text:
                continue
            hashes["test" if split == corpus.test else "train"].setdefault(text.label, array("Q")).append(text.hash)
            if sample_bytes and split in corpus.pretrain:
                heapq.heappush(sample, (-text.hash, text.text))
                size += len(text.text)
                while size - len(sample[0][1]) >= sample_bytes:
                    size -= len(heapq.heappop(sample)[1])
    found = {part: {label: np.unique(its) for label, its in by_class.items()} for part, by_class in hashes.items()}
    if corpus.test is None:
        found = _hold_out(found["train"], corpus.heldout)
    filled = Counter({part: sum(map(len, by_class.values())) for part, by_class in found.items()})
    classes = {part: {label for label in by_class if label is not None} for part, by_class in found.items()}
    _check_parts(corpus, filled, classes)
    names = (corpus.source.class_names() or sort_names(classes["train"])) if classes["train"] else []
    held_out = frozenset(h for its in found["test"].values() for h in its.tolist() if corpus.test is None)
    return Survey(total, names, [text for negative, text in sorted(sample) if -negative not in held_out], held_out)


def _hold_out(hashes: dict[str | None, np.ndarray], share: float | None) -> dict[str, dict[str | None, np.ndarray]]:
    """The classes' hashes, each (n,) uint64 in ascending order, in two parts: the largest of each class are "test".

    A class of two documents or more is in both parts. share: see `Corpus.heldout`.
    """
    parts: dict[str, dict[str | None, np.ndarray]] = {"train": {}, "test": {}}
    labelled = sum(len(its) for label, its in hashes.items() if label is not None)
    for label, its in hashes.items():
        total = len(its) if label is None else labelled
        wanted = share if share is not None else min(max(ENOUGH_HELD_OUT / total, 0.01), 0.2)
        count = min(max(round(wanted * len(its)), 1), len(its) - 1) if wanted else 0
        for part, some in (("train", its[: len(its) - count]), ("test", its[len(its) - count :])):
            if len(some):
                parts[part][label] = some
    return parts


def _check_splits(corpus: Corpus) -> None:
    there = corpus.source.splits()
    for split in corpus.splits():
        if split not in there:
            raise ValueError(f"data.splits: there is no split {split!r}. Give some of: {', '.join(there)}")


def _check_parts(corpus: Corpus, filled: Counter[str], classes: dict[str, set[str]]) -> None:
    if not filled["train"]:
        splits = [split for split in corpus.splits() if split != corpus.test]
        raise ValueError(f"data.path: all documents of the split {', '.join(splits)} are empty. Give files with text")
    if corpus.test is not None and not filled["test"]:
        raise ValueError(f"data.splits.test={corpus.test}: all its documents are empty. Give another split, or null")
    if corpus.test is None and corpus.heldout != 0 and len(classes["train"]) == filled["train"] > 1:
        raise ValueError(
            f"data.label_column: each of the {filled['train']} documents has a class of its own, so none can be held "
            "out for evaluation. Name another column, or null for none"
        )
    if corpus.test is None and corpus.heldout != 0 and not filled["test"]:
        raise ValueError(
            f"data.heldout={corpus.heldout}: none of the {filled['train']} documents was held out for evaluation. "
            "Give more documents (see data.documents) or a larger fraction; 0 goes without"
        )
    if only := classes["test"] - classes["train"]:
        raise ValueError(
            f"data.splits: the classes {', '.join(sort_names(only))} are only in the test part, so nothing could learn "
            "them. Correct the labels, or set data.label_column=null to go without"
        )


class _Encoded(NamedTuple):
    ids: np.ndarray
    label: int
    hash: int
    part: str


class _Writer:
    """Token ids go to a file as they come, the rest stays in memory until `finish`."""

    def __init__(self, folder: Path, tokenizer: TextTokenizer):
        self.folder, self.tokenizer = folder, tokenizer
        self.dtype = np.dtype(np.uint16 if tokenizer.vocab_size <= 2**16 else np.uint32)
        self.file = open(folder / "ids.bin", "wb")  # noqa: SIM115 - closed by finish
        self.starts, self.labels, self.hashes = array("q", [0]), array("q"), array("Q")

    def __len__(self) -> int:
        return len(self.labels)

    def add(self, document: _Encoded) -> None:
        self.file.write(np.append(document.ids, self.tokenizer.sep_id).astype(self.dtype).tobytes())
        self.starts.append(self.starts[-1] + len(document.ids) + 1)
        self.labels.append(document.label)
        self.hashes.append(document.hash)

    def finish(self, parts: dict[str, tuple[int, int]], class_names: list[str], dropped: int) -> None:
        self.file.close()
        np.save(self.folder / "starts.npy", np.array(self.starts))
        np.save(self.folder / "labels.npy", np.array(self.labels))
        np.save(self.folder / "hashes.npy", np.array(self.hashes))
        ids = np.memmap(self.file.name, dtype=self.dtype, mode="r")[: self.starts[parts["pretrain"][1]]]
        blocks = (
            np.bincount(ids[i : i + DOCUMENTS_PER_CHUNK], minlength=self.tokenizer.vocab_size)
            for i in range(0, len(ids), DOCUMENTS_PER_CHUNK)
        )
        np.save(self.folder / "counts.npy", sum(blocks))
        about = {"dtype": self.dtype.name, "parts": parts, "class_names": class_names, "dropped": dropped}
        about |= {"tokenizer": self.tokenizer.identity, "tokens": self.starts[-1]}
        (self.folder / "about.json").write_text(json.dumps(about, indent=1), encoding="utf-8")


def build(folder: Path, corpus: Corpus, tokenizer: TextTokenizer, found: Survey) -> None:
    """Fills `folder` with what `TokenStore` reads, with a progress bar. Documents without a token are left out.

    Raises: ValueError when the tokenizer does not know much of the text.
    """
    writer = _Writer(folder, tokenizer)
    aside: list[_Encoded] = []  # held-out documents follow all others
    parts = dict.fromkeys(("pretrain", "train", "test"), (0, 0))
    with _progress() as bar:
        task = bar.add_task("tokenizing", total=found.num_documents)
        for split in corpus.splits():
            begin = len(writer)
            for document in _encode(corpus, split, tokenizer, found, partial(bar.advance, task)):
                if document.part == "test" and corpus.test is None:
                    aside.append(document)
                else:
                    writer.add(document)
            if split in corpus.pretrain:
                parts["pretrain"] = (0, len(writer))
            if split in (corpus.train, corpus.test):
                parts["train" if split == corpus.train else "test"] = (begin, len(writer))
    if corpus.test is None:
        parts["test"] = (len(writer), len(writer) + len(aside))
    for document in aside:
        writer.add(document)
    writer.finish(parts, found.class_names, dropped=found.num_documents - len(writer))


def _encode(
    corpus: Corpus, split: str, tokenizer: TextTokenizer, found: Survey, advance: Callable[[int], None]
) -> Iterator[_Encoded]:
    label_of: dict[str | None, int] = {name: label for label, name in enumerate(found.class_names)}
    tokens = unknown = 0
    for texts in _chunks(corpus.texts(split)):
        for text, ids in zip(texts, tokenizer.encode([text.text for text in texts], special=False), strict=True):
            tokens += len(ids)
            unknown += int((ids == tokenizer.unk_id).sum())
            if len(ids):
                part = "test" if split == corpus.test or text.hash in found.held_out else "train"
                yield _Encoded(ids, label_of.get(text.label, -1), text.hash, part)
        if unknown > MOST_UNKNOWN * tokens:
            raise ValueError(
                f"data.tokenizer: {unknown / tokens:.0%} of the tokens in split {split} are unknown to it, so much "
                "of the text would be lost. Choose one made for this language, or train one: data.tokenizer.kind=bpe"
            )
        advance(len(texts))


def _chunks(texts: Iterator[Text]) -> Iterator[list[Text]]:
    """Lists of texts with about CHUNK characters together."""
    chunk, size = [], 0
    for text in texts:
        chunk.append(text)
        size += len(text.text)
        if size >= DOCUMENTS_PER_CHUNK:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("documents"))
    return Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn())
