"""The text module: facts, training rows, resume, ranks, evaluation, and bad input."""

import json
import multiprocessing
import os
import resource
import time
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ssl_zoo.data.text.module import TextData
from ssl_zoo.data.text.token_store import TokenStore
from ssl_zoo.views import Views
from ssl_zoo.views.text import Windows

pytestmark = pytest.mark.usefixtures("own_cache")

WORDS = ["the", "of", "and", "to", "in", "is", "you", "that", "it", "he", "was", "for", "on", "are", "as", "with"]
PLAIN = Views([[]])
IMDB = Path(os.environ.get("SSL_ZOO_DATA", "/nowhere")) / "imdb"


def write(path: Path, count: int, seed: int, labels: list[int] | None = None) -> None:
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(count):
        row: dict[str, Any] = {"text": " ".join(rng.choice(WORDS, rng.integers(3, 60))) + f" {seed}-{i}"}
        rows.append(row if labels is None else row | {"label": labels[i % len(labels)]})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    """A folder with 120 train, 60 test and 100 unlabelled documents."""
    folder = tmp_path / "labelled"
    folder.mkdir()
    write(folder / "train.jsonl", 120, 1, [0, 1, 1])
    write(folder / "test.jsonl", 60, 2, [0, 1, 1])
    write(folder / "unsupervised.jsonl", 100, 3, [-1])
    return folder


def text_data(path: Path | str, views: Views | None = PLAIN, **settings: Any) -> TextData:
    given: dict[str, Any] = {"batch_size": 8, "seed": 0, "tokenizer": {"vocab_size": 400}, "row_length": 16}
    data = TextData(**{**given, "path": str(path), **settings})
    data.prepare_data()
    data.setup()
    if views is not None:
        data.attach(views)
    return data


def imdb_like(path: Path, **settings: Any) -> TextData:
    splits = {"pretrain": ["train", "unsupervised"], "train": "train", "test": "test"}
    return text_data(path, **{"label_column": "label", "splits": splits, **settings})


def rows(data: TextData, count: int) -> list[Any]:
    return list(islice(iter(data.train_dataloader()), count))


def tokens_of(data: TextData) -> TokenStore:
    assert data.tokens is not None
    return data.tokens


def test_facts(labelled: Path) -> None:
    data = imdb_like(labelled)
    expected = {"modality": "text", "pad_id": 0, "unk_id": 1, "cls_id": 2, "sep_id": 3, "mask_id": 4, "num_special": 5}
    expected |= {"num_classes": 2, "class_names": ["0", "1"], "num_train": 120, "num_test": 60, "has_labels": True}
    expected |= {"max_length": 256, "vocab_size": data.tokenizer.vocab_size, "tokenizer_hash": data.tokenizer.identity}
    assert expected.items() <= data.facts.items()
    assert len(data.facts["word_starts"]) == data.facts["vocab_size"]
    assert json.loads(json.dumps(data.facts)) == data.facts  # plain values: they go into the configuration
    unlabelled = text_data(labelled / "train.jsonl", heldout=0.3)
    assert not unlabelled.facts["has_labels"]
    assert unlabelled.facts["num_classes"] == 0
    assert unlabelled.facts["num_train"] + unlabelled.facts["num_test"] == 120


def test_the_floor_is_that_of_the_training_frequencies(labelled: Path) -> None:
    data = imdb_like(labelled)
    tokens = tokens_of(data)
    counts = np.zeros(data.facts["vocab_size"])
    for i in tokens.splits["pretrain"]:
        for id_ in tokens.document(i):
            counts[id_] += 1
    targets = [id_ for id_ in data.heldout_rows().flatten().tolist() if id_ >= 5]
    losses = [-np.log((counts[id_] + 1) / (counts.sum() + len(counts) - 5)) for id_ in targets]
    assert data.facts["unigram_perplexity"] == pytest.approx(np.exp(np.mean(losses)))
    assert data.facts["majority_token_top1"] == pytest.approx(np.mean([id_ == counts.argmax() for id_ in targets]))


def test_an_epoch_of_packed_rows_holds_each_token_once(labelled: Path) -> None:
    data = imdb_like(labelled, batch_size=1)
    tokens = tokens_of(data)
    text = tokens.ids[: tokens.starts[tokens.splits["pretrain"].stop]]
    assert data.num_train == len(text) // 16
    first, second = (rows(data, 2 * data.num_train)[i * data.num_train : (i + 1) * data.num_train] for i in range(2))
    starts = []
    for epoch, batches in enumerate((first, second)):
        assert {batch.epoch for batch in batches} == {epoch}
        assert sorted(int(batch.indices) for batch in batches) == list(range(data.num_train))
        in_order = torch.cat([batch.rows for batch in sorted(batches, key=lambda batch: int(batch.indices))]).flatten()
        ring = np.concatenate([text, text])
        offset = next(o for o in range(16) if (ring[o : o + len(in_order)] == in_order.numpy()).all())
        starts.append(offset)
    assert starts[0] != starts[1]  # the cuts move
    assert [int(b.indices) for b in first] != [int(b.indices) for b in second]
    assert all((batch.labels == -1).all() and batch.rows.dtype == torch.int64 for batch in first)


def equal(a: list[Any], b: list[Any]) -> bool:
    return all(
        torch.equal(x, y) if isinstance(x, Tensor) else x == y
        for left, right in zip(a, b, strict=True)
        for x, y in zip(left, right, strict=True)
    )


@pytest.mark.parametrize("train_rows", ["packed", "documents", "labelled"])
def test_resume_continues_the_stream(labelled: Path, train_rows: str) -> None:
    whole = rows(imdb_like(labelled, train_rows=train_rows), 80)
    assert whole[0].epoch == 0
    assert whole[-1].epoch > 0
    assert equal(whole, rows(imdb_like(labelled, train_rows=train_rows), 80))
    data = imdb_like(labelled, train_rows=train_rows)
    loader = data.train_dataloader()
    data.start_batch = 37  # the learner may set it after the loader was made
    assert equal(list(islice(iter(loader), 43)), whole[37:])
    other = rows(imdb_like(labelled, train_rows=train_rows, seed=1), 80)
    assert not torch.equal(other[0].indices, whole[0].indices)


def test_ranks_share_the_batches_of_one_process(labelled: Path) -> None:
    whole = rows(imdb_like(labelled), 60)
    shares = []
    for rank in range(2):
        data = imdb_like(labelled)
        data.trainer = SimpleNamespace(global_rank=rank, world_size=2)  # type: ignore[assignment]
        shares.append(rows(data, 60))
    for batch, left, right in zip(whole, *shares, strict=True):
        assert len(left.rows) == len(right.rows) == 4
        assert torch.equal(batch.rows, torch.cat([left.rows, right.rows]))
    data.batch_size = 7
    with pytest.raises(ValueError, match=r"data\.batch_size=7 cannot be shared evenly by 2"):
        rows(data, 1)


def test_ranks_pad_to_the_longest_document_of_the_global_batch(labelled: Path) -> None:
    whole = rows(imdb_like(labelled, train_rows="documents"), 60)
    shares = []
    for rank in range(4):
        data = imdb_like(labelled, train_rows="documents")
        data.trainer = SimpleNamespace(global_rank=rank, world_size=4)  # type: ignore[assignment]
        shares.append(rows(data, 60))
    for batch, *parts in zip(whole, *shares, strict=True):
        assert len({part.rows.shape for part in parts}) == 1
        for name in ("rows", "labels", "indices"):
            assert torch.equal(getattr(batch, name), torch.cat([getattr(part, name) for part in parts]))
    assert len({batch.rows.shape for batch in whole}) > 1


def test_documents_come_one_a_row(labelled: Path) -> None:
    data = imdb_like(labelled, train_rows="documents", max_length=20)
    tokens = tokens_of(data)
    assert data.num_train == 220
    seen: list[int] = []
    for batch in rows(data, 220 // 8):
        assert batch.rows.shape[1] in (8, 16, 20)
        for row, label, index in zip(batch.rows, batch.labels, batch.indices, strict=True):
            expected = tokens.document(int(index))[:20].tolist()
            assert row.tolist() == expected + [0] * (len(row) - len(expected))
            assert label == tokens.labels[index]
            seen.append(int(index))
    assert len(set(seen)) == len(seen) == 216
    assert {int(label) for batch in rows(data, 27) for label in batch.labels} == {-1, 0, 1}
    assert not data.rows_have_labels
    assert not imdb_like(labelled, train_rows="packed").rows_have_labels
    data = imdb_like(labelled, train_rows="labelled")
    assert data.rows_have_labels
    assert data.num_train == 120
    assert {int(label) for batch in rows(data, 15) for label in batch.labels} == {0, 1}


def test_views_are_computed_on_the_batch(labelled: Path) -> None:
    data = imdb_like(labelled, views=Views([[Windows(4)]], copies=[2]))
    assert data.train_rows == "documents"  # what windows are cut from
    raw = rows(data, 1)[0]
    batch = data.on_after_batch_transfer(raw, 0)
    assert [view.shape for view in batch.views] == [(8, 4), (8, 4)]
    assert torch.equal(batch.labels, raw.labels)
    assert torch.equal(batch.indices, raw.indices)
    again = data.on_after_batch_transfer(raw, 0)
    assert all(torch.equal(a, b) for a, b in zip(batch.views, again.views, strict=True))
    plain = imdb_like(labelled)
    raw = rows(plain, 1)[0]
    assert plain.train_rows == "packed"
    assert torch.equal(plain.on_after_batch_transfer(raw, 0).views[0], raw.rows)


@pytest.mark.parametrize("split", ["train", "test"])
def test_evaluation_sees_each_labelled_document_once(labelled: Path, split: str) -> None:
    data = imdb_like(labelled, views=None, max_length=32)
    tokens = tokens_of(data)
    indices, cells, text = [], 0, 0
    for batch in data.eval_batches(split, 16):
        (view,) = batch.views
        assert view.shape[1] <= 32
        assert len(view) <= 16
        assert view.dtype == torch.int64
        for row, label, index in zip(view, batch.labels, batch.indices, strict=True):
            assert row[row != 0].tolist() == tokens.document(int(index))[:32].tolist()
            assert label == tokens.labels[index] >= 0
            indices.append(int(index))
        cells, text = cells + view.numel(), text + int((view != 0).sum())
    assert sorted(indices) == list(tokens.splits[split])
    assert text / cells > 0.95


def test_other_texts_are_tokenised_as_documents_are(labelled: Path) -> None:
    data = imdb_like(labelled, max_length=12, replace={"<br />": " "})
    texts = ["the movie<br />was  great", " ".join(["plot"] * 40), ""]
    rows = data.tokenise(texts)
    assert (rows.shape, rows.dtype) == ((3, 12), torch.int64)
    expected = data.tokenizer.encode(["the movie was great"])[0]
    assert rows[0, : len(expected)].tolist() == expected.tolist()
    assert (rows != data.tokenizer.pad_id).sum(dim=1).tolist() == [len(expected), 12, 0]
    assert data.tokenise(texts[:1]).shape == (1, len(expected))  # no longer than it must be
    assert data.tokenise([""]).shape == (1, 1)


def test_evaluation_can_be_capped(labelled: Path) -> None:
    def evaluated(seed: int) -> tuple[list[int], list[int]]:
        data = imdb_like(labelled, eval_examples=30, seed=seed)
        assert (data.facts["num_train"], data.facts["num_test"]) == (30, 30)
        batches = list(data.eval_batches("train", 8))
        return torch.cat([b.indices for b in batches]).tolist(), torch.cat([b.labels for b in batches]).tolist()

    indices, labels = evaluated(0)
    assert len(set(indices)) == 30
    assert sorted(labels) == [0] * 10 + [1] * 20
    assert evaluated(1)[0] == indices  # the run's seed does not choose what it is judged on


def test_held_out_text_is_never_trained_on(labelled: Path) -> None:
    for data in (imdb_like(labelled), text_data(labelled / "train.jsonl", heldout=0.3)):
        held = data.heldout_rows()
        assert held.shape[1] == 16
        assert held.dtype == torch.int64
        assert len(held) > 10
        trained = torch.cat([batch.rows for batch in rows(data, 2 * data.num_train // 8)])
        texts = " ".join(data.tokenizer.decode(row.tolist(), special=True) for row in trained)
        ends = {text.split()[-1] for text in _documents(data, "test")}  # "2-17": no two documents end alike
        assert len(ends) > 20
        assert not any(f"{end}[" in texts for end in ends)
        assert torch.equal(held, imdb_like(labelled).heldout_rows()) or data.splits is None
    assert len(imdb_like(labelled, eval_rows=7).heldout_rows()) == 7


def _documents(data: TextData, part: str) -> list[str]:
    tokens = tokens_of(data)
    return [data.tokenizer.decode(tokens.document(i).tolist()) for i in tokens.splits[part]]


def test_the_second_start_reads_the_cache(labelled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = imdb_like(labelled)

    def forbidden(*_: Any) -> None:
        raise AssertionError("read again")

    monkeypatch.setattr("ssl_zoo.data.text.module.survey", forbidden)
    monkeypatch.setattr("ssl_zoo.data.text.module.build_token_store", forbidden)
    assert imdb_like(labelled).facts == first.facts
    with pytest.raises(AssertionError, match="read again"):
        imdb_like(labelled, replace={"the": "a"})


def test_a_wordpiece_tokenizer_keeps_its_own_corpus(labelled: Path) -> None:
    data = imdb_like(labelled, tokenizer={"kind": "wordpiece", "vocab_size": 400})
    by_name = imdb_like(labelled, tokenizer={"name": str(data.tokenizer.path)})
    assert by_name.facts == data.facts
    assert equal(rows(by_name, 5), rows(data, 5))


def test_unlabelled_text_has_facts_and_no_labels(labelled: Path) -> None:
    data = text_data(labelled)
    assert not data.facts["has_labels"]
    judged = [int(i) for batch in data.eval_batches("test", 8) for i in batch.indices]
    assert len(judged) == data.facts["num_test"] > 0
    assert all((batch.labels == -1).all() for batch in data.eval_batches("train", 8))
    with pytest.raises(ValueError, match=r"data\.train_rows=labelled: this data has no labels"):
        text_data(labelled, train_rows="labelled")
    without = text_data(labelled / "train.jsonl", heldout=0)
    assert "unigram_perplexity" not in without.facts
    assert without.facts["num_test"] == 0
    with pytest.raises(ValueError, match=r"data\.heldout=0: the text held out"):
        without.heldout_rows()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 10_000}, r"data\.batch_size=10000 is more than the \d+ training examples"),
        ({"batch_size": 0}, r"data\.batch_size=0: give a whole number"),
        ({"row_length": 2.5}, r"data\.row_length=2\.5: give a whole number"),
        ({"train_rows": "windows"}, r"data\.train_rows=windows: give one of packed, documents, labelled"),
        ({"heldout": 1.0}, r"data\.heldout=1\.0 must lie in \[0, 1\)"),
        ({"heldout": "much"}, r"data\.heldout=much must lie in \[0, 1\)"),
        ({"splits": {"train": "train", "valid": "test"}}, r"data\.splits\.valid: there is no such use"),
        ({"splits": {"train": "train", "test": "train"}}, r"data\.splits=.* a test split that is neither"),
        ({"splits": {"test": "test"}}, r"data\.splits=.*: give pretrain or train"),
        ({"splits": {"train": "trian"}}, r"there is no split 'trian'\. Give some of: test, train, unsupervised"),
        ({"text_column": "body"}, r"data\.text_column=body: .*train\.jsonl, line 1 has no such column"),
        ({"row_length": 100_000, "batch_size": 1}, r"the text held out of training is shorter than one row"),
        ({"tokenizer": {"kind": "words"}}, r"data\.tokenizer\.kind=words"),
    ],
)
def test_bad_settings_are_refused_before_training(labelled: Path, settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        text_data(labelled, **settings)


def test_empty_documents_are_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    path = tmp_path / "corpus.txt"
    path.write_text("\n".join(f"some words of line {i}" if i % 3 else "" for i in range(300)))
    data = text_data(path, heldout=0.3)
    assert "corpus.txt: 140 training and 60 test documents, 100 empty ones left out, " in caplog.text
    assert data.facts["num_train"] + data.facts["num_test"] == 200


def test_two_processes_at_once_see_one_corpus(labelled: Path) -> None:
    # WordPiece training differs from time to time, so equal facts mean one training
    with multiprocessing.get_context("fork").Pool(2) as pool:
        facts = pool.starmap(_facts, [(labelled,)] * 2, chunksize=1)
    assert facts[0] == facts[1]


def _facts(path: Path) -> dict[str, Any]:
    return imdb_like(path, tokenizer={"kind": "wordpiece", "vocab_size": 400}).facts


@pytest.mark.slow
@pytest.mark.skipif(not IMDB.is_dir(), reason="no $SSL_ZOO_DATA/imdb")
def test_imdb() -> None:
    """The real reviews: prints what preparing them takes; asserts what does not depend on the machine's load."""
    before, memory = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    settings = {"row_length": 128, "tokenizer": {"vocab_size": 8192}, "replace": {"<br />": " "}}
    data = imdb_like(IMDB, **settings)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory) / 1024
    print(f"{time.process_time() - before:.0f} CPU seconds, {grown:.0f} MB, {data.facts['num_tokens']} tokens")
    assert grown < 1000
    assert data.facts["class_names"] == ["neg", "pos"]
    assert data.facts["num_test"] == 25_000
    assert len(data.heldout_rows()) == 2048
    started = time.process_time()
    imdb_like(IMDB, **settings)
    assert time.process_time() - started < 1


def test_what_was_read_is_said_each_time(labelled: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    (labelled / "notes.md").write_text("x")
    for _ in range(2):  # the second time from the cache
        text_data(labelled, label_column="label")
        said = caplog.text
        caplog.clear()
        assert "120 training and 60 test documents, 0 empty ones left out, " in said
        assert "; 2 classes (0 40, 1 80)" in said
        assert "splits not used: unsupervised (1 files)" in said
        assert "files left out by their endings: 1 .md (such as" in said


def test_one_class_is_no_label(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    write(tmp_path / "train.jsonl", 60, 1, [1, -1])
    write(tmp_path / "test.jsonl", 60, 2, [1])
    data = text_data(tmp_path, label_column="label")
    assert (data.facts["has_labels"], data.facts["num_classes"]) == (False, 0)
    assert "1 class (1 30), so no accuracy is measured, 30 unlabelled" in caplog.text


def test_a_validation_split_is_the_test_part_where_there_is_no_other(labelled: Path) -> None:
    (labelled / "test.jsonl").rename(labelled / "Dev.jsonl")
    assert text_data(labelled, label_column="label").facts["num_test"] == 60


def test_a_path_that_is_a_number(labelled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labelled.rename(labelled.parent / "2024")
    monkeypatch.chdir(labelled.parent)
    assert TextData(path=2024, batch_size=8, seed=0, tokenizer={}).source.splits() == ["test", "train", "unsupervised"]
    with pytest.raises(ValueError, match=r"data\.path=null: give the path of a file or folder"):
        TextData(path=None, batch_size=8, seed=0, tokenizer={})


def test_few_labels_are_what_evaluators_see_and_supervised_methods_train_on(labelled: Path) -> None:
    data = imdb_like(labelled, label_fraction=0.1)
    assert sum(len(batch.labels) for batch in data.eval_batches("train", 32)) == 12
    assert data.num_train > 12
    assert not data.rows_have_labels
    data.train_on_labelled()
    assert data.num_train == 12
    assert data.rows_have_labels
    assert all((batch.labels >= 0).all() for batch in rows(data, 3))
    assert sum(len(batch.labels) for batch in data.eval_batches("test", 32)) == 60
    packed = imdb_like(labelled, labels_per_class=5, train_rows="packed")
    packed.train_on_labelled()
    assert not packed.rows_have_labels
