"""From documents to token ids: parts, held-out documents, the sample, and what is refused."""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ssl_zoo.data.text import corpus as module
from ssl_zoo.data.text.corpus import Corpus, build_token_store, survey
from ssl_zoo.data.text.documents import Document
from ssl_zoo.data.text.token_store import TokenStore
from ssl_zoo.data.text.tokenizer import TextTokenizer, train_tokenizer

WORDS = ["the", "of", "and", "to", "in", "is", "you", "that", "it", "he", "was", "for", "on", "are", "as", "with"]


class Given:
    """A source that holds what it is given."""

    def __init__(self, names: list[str] | None = None, **splits: list[tuple[str, str | None]]):
        self.names, self.given = names, splits

    def key(self) -> dict[str, Any]:
        return {"given": self.given}

    def splits(self) -> list[str]:
        return list(self.given)

    def class_names(self) -> list[str] | None:
        return self.names

    def read(self, split: str, labelled: bool) -> Iterator[Document]:
        return (Document(text, label if labelled else None) for text, label in self.given[split])


def soup(count: int, seed: int, classes: str = "ab") -> list[tuple[str, str | None]]:
    rng = np.random.default_rng(seed)
    texts = (" ".join(rng.choice(WORDS, rng.integers(3, 30))) + f" {seed}-{i}" for i in range(count))
    return list(zip(texts, itertools.cycle(classes), strict=False))


def corpus(source: Given, **use: Any) -> Corpus:
    given = {"pretrain": ["train"], "train": "train", "test": None, "heldout": 0.2, "replace": {}}
    return Corpus(**{"source": source, **given, **use})


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> TextTokenizer:
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    train_tokenizer((text for text, _ in soup(200, 0)), "bpe", 400, True).save(str(path))
    return TextTokenizer(path)


def built(folder: Path, corpus: Corpus, tokenizer: TextTokenizer) -> TokenStore:
    folder.mkdir()
    build_token_store(folder, corpus, tokenizer, survey(corpus))
    return TokenStore(folder)


def texts(tokens: TokenStore, tokenizer: TextTokenizer, part: str) -> list[str]:
    return [tokenizer.decode(tokens.document(i)) for i in tokens.splits[part]]


def test_parts_lie_in_one_piece_each(tmp_path: Path, tokenizer: TextTokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHARACTERS_PER_CHUNK", 500)  # many chunks
    source = Given(train=soup(30, 1), test=soup(20, 2), extra=soup(40, 3))
    tokens = built(tmp_path / "a", corpus(source, pretrain=["train", "extra"], test="test"), tokenizer)
    assert {part: len(documents) for part, documents in tokens.splits.items()} == {
        "pretrain": 70,
        "train": 30,
        "test": 20,
    }
    assert texts(tokens, tokenizer, "train") == [text for text, _ in source.given["train"]]
    assert texts(tokens, tokenizer, "test") == [text for text, _ in source.given["test"]]
    assert sorted(texts(tokens, tokenizer, "pretrain")) == sorted(
        t for t, _ in source.given["train"] + source.given["extra"]
    )
    assert tokens.class_names == ["a", "b"]
    assert tokens.labels[list(tokens.splits["train"])].tolist() == [0, 1] * 15
    assert tokens.labelled("pretrain").tolist() == list(tokens.splits["train"])  # others are read without labels
    ids = tokens.ids[: tokens.starts[tokens.splits["pretrain"].stop]]
    assert tokens.counts.tolist() == np.bincount(ids, minlength=tokenizer.vocab_size).tolist()
    assert tokens.counts[tokenizer.sep_id] == 70
    assert tokens.ids.dtype == np.uint16


def test_held_out_documents_are_chosen_by_content(tmp_path: Path, tokenizer: TextTokenizer) -> None:
    rows = soup(200, 1)
    rows += rows[:100]  # twins
    there = built(tmp_path / "a", corpus(Given(train=rows)), tokenizer)
    back = built(tmp_path / "b", corpus(Given(train=rows[::-1])), tokenizer)
    held, kept = set(texts(there, tokenizer, "test")), set(texts(there, tokenizer, "pretrain"))
    assert held == set(texts(back, tokenizer, "test"))
    assert not held & kept
    assert held | kept == {text for text, _ in rows}
    assert len(held) == 40  # of 200
    assert [len(held & {text for text, label in rows if label == name}) for name in "ab"] == [20, 20]
    assert there.splits["train"] == there.splits["pretrain"]
    assert (there.labels >= 0).all()  # labelled held-out documents serve as the test part


@pytest.mark.parametrize(
    ("count", "heldout", "expected"),
    [(5_452, None, 1_000), (5_452, 0.1, 545), (300, None, 60), (150_000, None, 1_500), (5_452, 0, 0)],
)
def test_enough_is_held_out_of_each_class(count: int, heldout: float | None, expected: int) -> None:
    """Of 5,452 questions in six classes, the smallest of 86, all classes are tested in their share."""
    sizes = [0.23, 0.22, 0.22, 0.16, 0.154, 0.016]
    rng = np.random.default_rng(0)
    hashes: dict[str | None, np.ndarray] = {
        str(c): np.unique(rng.integers(0, 2**63, round(share * count)).astype(np.uint64))
        for c, share in enumerate(sizes)
    }
    parts = module._hold_out(hashes, heldout)
    assert sum(map(len, parts["test"].values())) == pytest.approx(expected, abs=3)
    for label, its in hashes.items():
        held = parts["test"].get(label, its[:0])
        assert np.array_equal(np.concatenate([parts["train"][label], held]), its)
        assert len(held) == pytest.approx(expected * len(its) / count, abs=1)


def test_labelled_documents_are_enough_among_many_without_label() -> None:
    hashes: dict[str | None, np.ndarray] = {
        "a": np.arange(2000),
        "b": np.arange(3),
        "c": np.arange(1),
        None: np.arange(10**6),
    }
    held = {label: len(its) for label, its in module._hold_out(hashes, None)["test"].items()}
    assert held == {"a": 400, "b": 1, None: 10_000}


def test_equal_texts_of_different_classes_are_on_one_side(tmp_path: Path, tokenizer: TextTokenizer) -> None:
    texts_ = [text for text, _ in soup(100, 1)]
    rows = [*((text, "a") for text in texts_), *((text, "b") for text in texts_)]
    tokens = built(tmp_path / "a", corpus(Given(train=rows)), tokenizer)
    held, kept = set(texts(tokens, tokenizer, "test")), set(texts(tokens, tokenizer, "pretrain"))
    assert not held & kept
    assert len(held) == 20


def test_the_sample_is_bounded_and_does_not_depend_on_the_order() -> None:
    source = Given(train=soup(200, 1), test=soup(50, 2), extra=soup(100, 3))
    use = {"pretrain": ["train", "extra"], "test": "test"}
    sample = survey(corpus(source, **use), 5000).sample
    assert 5000 <= sum(map(len, sample)) < 5000 + max(map(len, sample))
    assert not {text for text, _ in source.given["test"]} & set(sample)
    turned = Given(train=source.given["train"][::-1], test=source.given["test"], extra=source.given["extra"])
    assert survey(corpus(turned, **use), 5000).sample == sample
    assert survey(corpus(source, **use)).sample == []
    no_test = corpus(source, pretrain=["train"])
    everything = survey(no_test, 10**9).sample
    assert len(everything) < 200  # the held-out documents train no tokenizer either


def test_special_tokens_in_a_text_are_text(tmp_path: Path, tokenizer: TextTokenizer) -> None:
    tokens = built(tmp_path / "a", corpus(Given(train=[("[MASK] [PAD] [SEP]", None)]), heldout=0), tokenizer)
    assert tokens.document(0).min() >= tokenizer.num_special
    assert tokenizer.decode(tokens.document(0)) == "[mask] [pad] [sep]"


def test_empty_documents_are_counted_and_left_out(tmp_path: Path, tokenizer: TextTokenizer) -> None:
    rows = [("", "a"), *soup(10, 1), (" \n", "b"), ("<br />", "b")]
    tokens = built(tmp_path / "a", corpus(Given(train=rows), heldout=0, replace={"<br />": " "}), tokenizer)
    assert tokens.dropped == 3
    assert len(tokens.labels) == 10
    assert len(tokens.splits["test"]) == 0


def test_classes_keep_the_official_order_or_count_up() -> None:
    assert survey(corpus(Given(["z", "a"], train=soup(50, 1, "za")))).class_names == ["z", "a"]
    numbers = [(text, str(i % 11)) for i, (text, _) in enumerate(soup(200, 1))]
    assert survey(corpus(Given(train=numbers))).class_names == [str(i) for i in range(11)]
    assert survey(corpus(Given(train=[(text, None) for text, _ in soup(50, 1)]))).class_names == []


@pytest.mark.parametrize(
    ("splits", "use", "message"),
    [
        ({"train": [("x", None)]}, {"test": "dev"}, r"data\.splits: there is no split 'dev'\. Give some of: train"),
        ({"train": [(" ", None)]}, {}, r"data\.path: all documents of the split train are empty"),
        (
            {"train": soup(9, 1), "test": [("", "a")]},
            {"test": "test"},
            r"data\.splits\.test=test: all its documents are",
        ),
        ({"train": soup(9, 1), "test": [("x", "c")]}, {"test": "test"}, r"the classes c are only in the test split"),
        (
            {"train": [("one", "a"), ("two", "b")]},
            {},
            r"data\.label_column: each of the 2 documents has a class of its",
        ),
        ({"train": [("one", None)]}, {"heldout": 1e-9}, r"data\.heldout=1e-09: none of the 1 documents was held out"),
    ],
)
def test_what_is_refused(splits: dict, use: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        survey(corpus(Given(**splits), **use))


def test_a_tokenizer_of_another_language_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    train_tokenizer((text for text, _ in soup(200, 0)), "wordpiece", 400, True).save(str(path))
    with pytest.raises(ValueError, match=r"data\.tokenizer: 100% of the tokens in split train are unknown"):
        built(tmp_path / "a", corpus(Given(train=[("日本語のテキスト", None)]), heldout=0), TextTokenizer(path))


def test_the_key_follows_all_that_matters() -> None:
    source = Given(train=soup(5, 1), test=soup(5, 2))
    base = corpus(source, test="test")
    assert base.key() == corpus(source, test="test", heldout=0.5).key()  # of no use with a test split
    others = [{"test": None}, {"test": "test", "replace": {"a": "b"}}, {"test": "test", "train": None}]
    assert all(corpus(source, **use).key() != base.key() for use in others)
