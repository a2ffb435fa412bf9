"""Blanks are found in every spelling, and guesses are probabilities over the vocabulary."""

import io

import pytest
import torch
from rich.console import Console

from ssl_zoo.data.text.tokenizer import TextTokenizer, train_tokenizer
from ssl_zoo.methods.mlm import MLM
from ssl_zoo.tasks.fill_mask import guesses, guesses_table
from tests.methods.test_mlm import Tokens

pytestmark = pytest.mark.xdist_group("fill")  # its fixture is costly: one worker runs the file


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> TextTokenizer:
    made = train_tokenizer(["the movie was great", "a bad film and a good one"] * 5, "bpe", 300, lowercase=True)
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    made.save(str(path))
    return TextTokenizer(path)


@pytest.fixture
def method(tokenizer: TextTokenizer) -> MLM:
    torch.manual_seed(0)
    backbone = Tokens()
    backbone.embedding = torch.nn.Embedding(tokenizer.vocab_size, 8)
    starts = "1" * tokenizer.vocab_size
    return MLM(backbone, 0.3, [1, 0, 0], False, tokenizer.mask_id, tokenizer.num_special, starts)


@pytest.mark.parametrize("text", ["The movie was [MASK].", "[MASK] movie", "the ___ was <mask>", "a ______ film"])
def test_each_blank_gets_its_guesses(text: str, method: MLM, tokenizer: TextTokenizer) -> None:
    found = guesses(method, tokenizer, text, top_k=4)
    assert len(found) == text.count("[MASK]") + text.count("<mask>") + ("___" in text)
    for row in found:
        assert len(row) == 4
        assert [guess.score for guess in row] == sorted((guess.score for guess in row), reverse=True)
        assert all(0 < guess.score < 1 and guess.token >= method.num_special for guess in row)
        assert not any("Ġ" in guess.token_str for guess in row)


def test_all_probabilities_sum_to_one_without_the_special_ones(method: MLM, tokenizer: TextTokenizer) -> None:
    ordinary = tokenizer.vocab_size - method.num_special
    (row,) = guesses(method, tokenizer, "the [MASK]", top_k=ordinary)
    assert 0.9 < sum(guess.score for guess in row) <= 1 + 1e-5


def test_a_text_without_a_blank_is_refused(method: MLM, tokenizer: TextTokenizer) -> None:
    with pytest.raises(ValueError, match=r"text='no blank' has no blank"):
        guesses(method, tokenizer, "no blank")


def test_the_table_shows_word_and_probability(method: MLM, tokenizer: TextTokenizer) -> None:
    console = Console(width=100, record=True, file=io.StringIO())
    found = guesses(method, tokenizer, "the ___", top_k=2)
    console.print(guesses_table("the ___", found))
    text = console.export_text()
    assert f"{found[0][0].score:.1%}" in text
