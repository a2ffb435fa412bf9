"""Converts documents to token ids on disk: one pass to survey the corpus, one to tokenize it."""

import hashlib
import heapq
import json
from array import array
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ssl_zoo.data.labels import held_out_share, sort_names
from ssl_zoo.data.splits import TEST_NAMES, find_split
from ssl_zoo.data.text.documents import clean
from ssl_zoo.data.text.sources import TextSource
from ssl_zoo.data.text.tokenizer import TextTokenizer

CHARACTERS_PER_CHUNK = 2_000_000
"""Characters tokenized at a time, which bounds the memory."""
MAX_UNKNOWN = 0.2
"""A larger share of unknown tokens means that the tokenizer was made for another language."""


class Text(NamedTuple):
    """A cleaned document, perhaps empty.

    Attributes:
        text: see `documents.clean`.
        label: its class, None where unknown.
        hash: 64 bits of a hash of the text.
    """

    text: str
    label: str | None
    hash: int


class Corpus(NamedTuple):
    """A source and how its splits are used.

    Attributes:
        source: the documents.
        pretrain: splits of the source to train on.
        train: the split whose labels are used for training, if any.
        test: the split whose labels are used for evaluation, if any.
        heldout: without `test`, the fraction of the documents of each class that is held out as the test split, chosen
            by content; None: see `held_out_share`, for the number of those with and of those without labels.
        replace: see `documents.clean`.
    """

    source: TextSource
    pretrain: list[str]
    train: str | None
    test: str | None
    heldout: float | None
    replace: dict[str, str]

    def key(self) -> dict[str, object]:
        """JSON values that determine all texts and their splits."""
        heldout = {"share": self.heldout, "version": 2} if self.test is None else 0
        return {**self._asdict(), "heldout": heldout, "source": self.source.key()}

    def splits(self) -> list[str]:
        """Each split of the source once, ordered so that the pretraining, train and test documents are contiguous."""
        others = [split for split in self.pretrain if split != self.train]
        return [*others, *([self.train] if self.train else []), *([self.test] if self.test else [])]

    def texts(self, split: str) -> Iterator[Text]:
        """The cleaned documents of a split of the source."""
        for document in self.source.read(split, labelled=split in (self.train, self.test)):
            text = clean(document.text, self.replace)
            digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
            yield Text(text, document.label, int.from_bytes(digest))


def choose_corpus(
    source: TextSource, splits: dict[str, Any] | None, heldout: float | None, replace: dict[str, str]
) -> Corpus:
    """The corpus that `data.splits` describes; see `TextData`.

    Raises:
        ValueError: for an unknown use, without any text to train on, or if the test split is trained on.
    """
    available = source.splits()
    if splits is None:
        splits = {"train": "train", "test": next((name for name in TEST_NAMES if find_split(name, available)), None)}
    if unknown := set(splits) - {"pretrain", "train", "test"}:
        raise ValueError(f"data.splits.{unknown.pop()}: there is no such use. Give pretrain, train and test")
    train, test = splits.get("train"), splits.get("test")
    pretrain = splits.get("pretrain") or [train]
    pretrain = [pretrain] if isinstance(pretrain, str) else list(pretrain)
    if pretrain == [None] or test in (train, *pretrain):
        raise ValueError(f"data.splits={splits}: give pretrain or train, and a test split that is neither")
    pretrain = [find_split(name, available) or name for name in pretrain]
    train, test = (name and (find_split(name, available) or name) for name in (train, test))
    return Corpus(source, pretrain, train, test, heldout, replace)


class Survey(NamedTuple):
    """What a corpus contains.

    Attributes:
        num_documents: including empty ones.
        class_names: those of the training split, in order.
        sample: texts to train a tokenizer on.
        held_out: hashes of the documents held out as the test split, if the source has none. Equal documents are in the
            same split, whatever their order.
    """

    num_documents: int
    class_names: list[str]
    sample: list[str]
    held_out: frozenset[int]


def survey(corpus: Corpus, sample_bytes: int = 0) -> Survey:
    """Reads everything once. The sample is chosen by hash from all pretraining text, whatever its order.

    Args:
        corpus: what to read.
        sample_bytes: size of the sample.

    Raises:
        ValueError: for splits that do not exist, a split without text, or a class that only the test split has.
    """
    _check_splits(corpus)
    total = 0
    # Hashes of the documents with text, by split and class.
    hashes: dict[str, dict[str | None, array]] = {"train": {}, "test": {}}
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
    found = {split: {label: np.unique(its) for label, its in by_class.items()} for split, by_class in hashes.items()}
    if corpus.test is None:
        found = _hold_out(found["train"], corpus.heldout)
    filled = Counter({split: sum(map(len, by_class.values())) for split, by_class in found.items()})
    classes = {split: {label for label in by_class if label is not None} for split, by_class in found.items()}
    _check_survey(corpus, filled, classes)
    names = (corpus.source.class_names() or sort_names(classes["train"])) if classes["train"] else []
    held_out = frozenset(h for its in found["test"].values() for h in its.tolist() if corpus.test is None)
    return Survey(total, names, [text for negative, text in sorted(sample) if -negative not in held_out], held_out)


def _hold_out(hashes: dict[str | None, np.ndarray], share: float | None) -> dict[str, dict[str | None, np.ndarray]]:
    """Divides each class's hashes, (n,) uint64 in ascending order, into "train" and "test", which gets the largest.

    A class of two documents or more is in both. `share` is `Corpus.heldout`.
    """
    divided: dict[str, dict[str | None, np.ndarray]] = {"train": {}, "test": {}}
    labelled = sum(len(its) for label, its in hashes.items() if label is not None)
    for label, its in hashes.items():
        total = len(its) if label is None else labelled
        wanted = held_out_share(total, share)
        count = min(max(round(wanted * len(its)), 1), len(its) - 1) if wanted else 0
        for split, members in (("train", its[: len(its) - count]), ("test", its[len(its) - count :])):
            if len(members):
                divided[split][label] = members
    return divided


def _check_splits(corpus: Corpus) -> None:
    there = corpus.source.splits()
    for split in corpus.splits():
        if split not in there:
            raise ValueError(f"data.splits: there is no split {split!r}. Give some of: {', '.join(there)}")


def _check_survey(corpus: Corpus, filled: Counter[str], classes: dict[str, set[str]]) -> None:
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
            f"data.splits: the classes {', '.join(sort_names(only))} are only in the test split, so nothing could "
            "learn them. Correct the labels, or set data.label_column=null to go without"
        )


class _Encoded(NamedTuple):
    ids: np.ndarray
    label: int
    hash: int
    split: str


class _Writer:
    """Writes token ids to a file as they come and keeps the rest in memory until `finish`."""

    def __init__(self, folder: Path, tokenizer: TextTokenizer):
        self.folder = folder
        self.tokenizer = tokenizer
        self.dtype = np.dtype(np.uint16 if tokenizer.vocab_size <= 2**16 else np.uint32)
        self.file = open(folder / "ids.bin", "wb")  # noqa: SIM115 - closed by finish
        self.starts = array("q", [0])
        self.labels = array("q")
        self.hashes = array("Q")

    def __len__(self) -> int:
        return len(self.labels)

    def add(self, document: _Encoded) -> None:
        self.file.write(np.append(document.ids, self.tokenizer.sep_id).astype(self.dtype).tobytes())
        self.starts.append(self.starts[-1] + len(document.ids) + 1)
        self.labels.append(document.label)
        self.hashes.append(document.hash)

    def finish(self, ranges: dict[str, tuple[int, int]], class_names: list[str], dropped: int) -> None:
        self.file.close()
        np.save(self.folder / "starts.npy", np.array(self.starts))
        np.save(self.folder / "labels.npy", np.array(self.labels))
        np.save(self.folder / "hashes.npy", np.array(self.hashes))
        ids = np.memmap(self.file.name, dtype=self.dtype, mode="r")[: self.starts[ranges["pretrain"][1]]]
        blocks = (
            np.bincount(ids[i : i + CHARACTERS_PER_CHUNK], minlength=self.tokenizer.vocab_size)
            for i in range(0, len(ids), CHARACTERS_PER_CHUNK)
        )
        np.save(self.folder / "counts.npy", sum(blocks))
        about = {"dtype": self.dtype.name, "parts": ranges, "class_names": class_names, "dropped": dropped}
        about |= {"tokenizer": self.tokenizer.identity, "tokens": self.starts[-1]}
        (self.folder / "about.json").write_text(json.dumps(about, indent=1), encoding="utf-8")


def build_token_store(folder: Path, corpus: Corpus, tokenizer: TextTokenizer, found: Survey) -> None:
    """Fills `folder` with the files of a `TokenStore`, with a progress bar. Documents without a token are left out.

    Raises:
        ValueError: when too many tokens of the text are unknown.
    """
    writer = _Writer(folder, tokenizer)
    held_out: list[_Encoded] = []  # written after all other documents
    ranges = dict.fromkeys(("pretrain", "train", "test"), (0, 0))
    with _progress() as bar:
        task = bar.add_task("tokenizing", total=found.num_documents)
        for split in corpus.splits():
            begin = len(writer)
            for document in _encode(corpus, split, tokenizer, found, partial(bar.advance, task)):
                if document.split == "test" and corpus.test is None:
                    held_out.append(document)
                else:
                    writer.add(document)
            if split in corpus.pretrain:
                ranges["pretrain"] = (0, len(writer))
            if split in (corpus.train, corpus.test):
                ranges["train" if split == corpus.train else "test"] = (begin, len(writer))
    if corpus.test is None:
        ranges["test"] = (len(writer), len(writer) + len(held_out))
    for document in held_out:
        writer.add(document)
    writer.finish(ranges, found.class_names, dropped=found.num_documents - len(writer))


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
                is_test = split == corpus.test or text.hash in found.held_out
                yield _Encoded(ids, label_of.get(text.label, -1), text.hash, "test" if is_test else "train")
        if unknown > MAX_UNKNOWN * tokens:
            raise ValueError(
                f"data.tokenizer: {unknown / tokens:.0%} of the tokens in split {split} are unknown to it, so much "
                "of the text would be lost. Choose one made for this language, or train one: data.tokenizer.kind=bpe"
            )
        advance(len(texts))


def _chunks(texts: Iterator[Text]) -> Iterator[list[Text]]:
    """Lists of texts with about `CHARACTERS_PER_CHUNK` characters together."""
    chunk, size = [], 0
    for text in texts:
        chunk.append(text)
        size += len(text.text)
        if size >= CHARACTERS_PER_CHUNK:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("documents"))
    return Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn())
