"""Sets are found, named when they are not, and read; vectors are those of each text alone."""

from pathlib import Path

import pytest
import torch
from torch import nn

from ssl_zoo.evaluators.base import EvalContext, warn_once
from ssl_zoo.evaluators.sentences import SetSplit, embed_texts, find_sets, read_columns
from ssl_zoo.method import Method
from tests.evaluators.fakes import FakeData
from tests.evaluators.sentence_fakes import Bag, Letters, letters_context, write_split

KNOWN = {"first": ("one", "test"), "second": ("two", "sts13")}


def test_missing_sets_are_named_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    warn_once.cache_clear()
    (tmp_path / "one").mkdir()
    found = {"second": SetSplit(write_split(tmp_path / "two" / "data", "sts13", text=["a"]).parent, "sts13")}
    monkeypatch.setenv("SSL_ZOO_DATA", str(tmp_path))
    for _ in range(2):
        assert find_sets("evaluators.pairs", KNOWN, None, None) == found
    assert caplog.messages == [f"pairs: not below {tmp_path}, so skipped: first"]
    monkeypatch.delenv("SSL_ZOO_DATA")
    assert find_sets("evaluators.pairs", KNOWN, ["second"], str(tmp_path)) == found


@pytest.mark.parametrize(
    ("sets", "root", "words"),
    [
        (["first"], "here", r"evaluators\.pairs\.sets: first is not there: no files test-\*\.parquet in .*one\. Put"),
        (None, "nowhere", r"evaluators\.pairs\.sets: first is not there"),
        (["third"], "here", r"evaluators\.pairs\.sets: third is unknown\. Give some of first, second"),
        ([], "here", r"evaluators\.pairs\.sets=\[\]: give one or more"),
        (["second", "second"], "here", "one or more different sets"),
        (None, None, r"evaluators\.pairs\.root=null: give the folder .* or set SSL_ZOO_DATA"),
    ],
)
def test_mistakes_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sets: list[str] | None, root: str | None, words: str
) -> None:
    monkeypatch.delenv("SSL_ZOO_DATA", raising=False)
    write_split(tmp_path / "here" / "two", "sts13", text=["a"])
    with pytest.raises(ValueError, match=words):
        find_sets("evaluators.pairs", KNOWN, sets, root and str(tmp_path / root))


def test_columns_of_one_split_or_all(tmp_path: Path) -> None:
    write_split(tmp_path / "data", "train", text=["a", "b"], label=[0, 1], fold=[1, 2])
    write_split(tmp_path / "data", "test", text=["c"], label=[1], fold=[0])
    assert read_columns(SetSplit(tmp_path, "test"), ["text", "label"]) == {"text": ["c"], "label": [1]}
    every = read_columns(SetSplit(tmp_path, "*"), ["text"], optional=["fold", "other"])
    assert every == {"text": ["c", "a", "b"], "fold": [0, 1, 2]}
    with pytest.raises(ValueError, match=r"no files validation-\*\.parquet"):
        read_columns(SetSplit(tmp_path, "validation"), ["text"])
    with pytest.raises(ValueError, match=r"no column score\. It has text, label, fold"):
        read_columns(SetSplit(tmp_path, "test"), ["score"])
    (tmp_path / "data" / "test-00000-of-00001.parquet").write_bytes(b"PAR1 no more")
    with pytest.raises(ValueError, match=r"cannot be read .*Replace the file"):
        read_columns(SetSplit(tmp_path, "test"), ["text"])


@pytest.mark.parametrize("batch_size", [256, 2])
def test_vectors_come_in_the_order_of_the_texts(batch_size: int) -> None:
    texts = ["a longer one", "b", "a longer one", "", "cc"]
    x = embed_texts("pairs", letters_context(batch_size=batch_size), texts)
    assert (x.shape, x.dtype) == ((5, 128), torch.float32)
    for row, text in zip(x, texts, strict=True):
        assert {chr(i): int(n) for i, n in enumerate(row) if n} == {letter: text.count(letter) for letter in text}


def test_the_text_tower_is_the_encoder_of_a_method_that_has_one() -> None:
    class Towers(Method):
        def embed_image(self, images: torch.Tensor) -> torch.Tensor:
            raise AssertionError("no image is embedded")

        def embed_text(self, ids: torch.Tensor) -> torch.Tensor:
            return ids[:, :1].float()

    data = Letters()
    data.facts["modality"] = "image"
    method = Towers(nn.Linear(1, 1))
    assert embed_texts("pairs", EvalContext(method, data, "final"), ["a", "b"]).tolist() == [[97.0], [98.0]]
    assert method.training


def test_what_embeds_no_text_is_refused() -> None:
    images = FakeData(*[(torch.eye(3), torch.arange(3))] * 2)
    with pytest.raises(ValueError, match=r"evaluators=\[pairs\] needs a text encoder"):
        embed_texts("pairs", EvalContext(Method(Bag()), images, "final"), ["a"])
    broken = nn.Linear(1, 1)
    broken.forward = lambda ids: torch.full((len(ids), 2), torch.nan)  # type: ignore[method-assign]
    with pytest.raises(FloatingPointError, match="pairs: the encoder's features hold NaN"):
        embed_texts("pairs", letters_context(broken), ["a"])
