"""Rows cut from the flat array, against naive loops; batches of like length."""

import json
from pathlib import Path

import numpy as np
import pytest

from ssl_zoo.data.text.token_store import TokenStore

SEP, PAD = 3, 0
LENGTHS = [5, 1, 12, 3, 7, 9, 2, 4]
LABELS = [0, 1, -1, 0, 1, 1, 0, 1]
TRAINED, TWIN = 5, 6  # documents 0 to 4 are trained on; number 6, of the test part, has a twin among them


@pytest.fixture
def tokens(tmp_path: Path) -> TokenStore:
    documents = [np.arange(length) + 10 * (i + 1) for i, length in enumerate(LENGTHS)]
    np.concatenate([np.append(d, SEP) for d in documents]).astype(np.uint16).tofile(tmp_path / "ids.bin")
    np.save(tmp_path / "starts.npy", np.cumsum([0, *(length + 1 for length in LENGTHS)]))
    np.save(tmp_path / "labels.npy", np.array(LABELS))
    np.save(tmp_path / "hashes.npy", np.array([11, 22, 33, 44, 55, 99, 22, 77], dtype=np.uint64))
    np.save(tmp_path / "counts.npy", np.zeros(200, dtype=np.int64))
    parts = {"pretrain": (0, TRAINED), "train": (2, TRAINED), "test": (TRAINED, 8)}
    about = {"dtype": "uint16", "parts": parts, "class_names": ["a", "b"], "dropped": 0}
    (tmp_path / "about.json").write_text(json.dumps(about))
    return TokenStore(tmp_path)


def test_documents(tokens: TokenStore) -> None:
    assert tokens.document(2).tolist() == list(range(30, 42))
    assert tokens.lengths(np.arange(8)).tolist() == LENGTHS
    assert tokens.labelled("train").tolist() == [3, 4]
    assert tokens.labelled("test").tolist() == [5, 6, 7]


@pytest.mark.parametrize("offset", [0, 1, 6])
@pytest.mark.parametrize("length", [1, 4, 7])
def test_packed_rows_hold_each_token_once(tokens: TokenStore, length: int, offset: int) -> None:
    text = tokens.ids[: sum(LENGTHS[:TRAINED]) + TRAINED].tolist()
    rows = tokens.packed(np.arange(tokens.num_rows(length)), length, offset)
    assert rows.shape == (len(text) // length, length)
    assert rows.dtype == np.int64
    around = text[offset:] + text[:offset]
    assert rows.ravel().tolist() == around[: rows.size]
    assert tokens.packed(np.array([1, 0]), length, offset).tolist() == rows[[1, 0]].tolist()


def test_padded_rows(tokens: TokenStore) -> None:
    rows = tokens.padded(np.array([1, 3, 0]), max_length=4, pad_id=PAD)
    assert rows.tolist() == [[20, 0, 0, 0], [40, 41, 42, 0], [10, 11, 12, 13]]
    assert tokens.padded(np.array([1, 3]), 8, PAD).shape == (2, 3)
    assert tokens.padded(np.array([1, 3]), 8, PAD, multiple=8).shape == (2, 8)
    assert tokens.padded(np.array([1, 2]), 10, PAD, multiple=8).shape == (2, 10)


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_buckets_hold_each_document_once_and_pad_little(tmp_path: Path, batch_size: int) -> None:
    lengths = np.random.default_rng(0).lognormal(3, 1, 3000).astype(int) + 1
    tokens = TokenStore.__new__(TokenStore)
    tokens.starts = np.cumsum([0, *(lengths + 1)])
    documents = np.arange(500, 3000)
    batches = list(tokens.buckets(documents, batch_size, max_length=64))
    assert sorted(np.concatenate(batches)) == documents.tolist()
    assert max(map(len, batches)) <= batch_size
    kept = np.minimum(lengths, 64)
    cells = sum(len(batch) * kept[batch].max() for batch in batches)
    print(f"padding {1 - kept[documents].sum() / cells:.2%}")
    assert kept[documents].sum() / cells > 0.95
    assert kept[batches[0]].max() == 64  # the longest come first: too large a batch fails at once


def test_held_out_rows_have_no_twin_in_training(tokens: TokenStore) -> None:
    # by hash: document 7, then 5; number 6 is left out
    text = [*range(80, 84), SEP, *range(60, 69), SEP]
    assert tokens.heldout(4, limit=100).ravel().tolist() == text[:12]
    assert tokens.heldout(4, limit=2).ravel().tolist() == text[:8]
    assert tokens.heldout(100, limit=2).shape == (0, 100)
