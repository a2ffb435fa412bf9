"""Ids, round trips, word starts, caching, and what a user can get wrong."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ssl_zoo.data.text.tokenizer import TextTokenizer, cut_words, expected_tokens, prepare_tokenizer, train_tokenizer

TEXTS = [
    "The movie was wonderful, and the actors were wonderful too.",
    "I didn't like the movie (really): the acting was unbelievably bad!",
    "Actors act; movies move. Unbelievable acting, unbelievable movie.",
] * 20
SCRIPT = """
import sys
from ssl_zoo.data.text.tokenizer import prepare_tokenizer
texts = [f"word{i % 97} and token{i % 89} make text {i}" for i in range(2000)]
print(prepare_tokenizer(lambda size: texts, {"corpus": 1}, kind="wordpiece", vocab_size=400).identity)
"""


pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture(params=["bpe", "wordpiece"])
def tokenizer(request: pytest.FixtureRequest, tmp_path: Path) -> TextTokenizer:
    return trained(tmp_path / "tokenizer.json", request.param)


def trained(path: Path, kind: str = "bpe", lowercase: bool = True) -> TextTokenizer:
    train_tokenizer(TEXTS, kind, 400, lowercase).save(str(path))
    return TextTokenizer(path)


def test_special_ids_come_first(tokenizer: TextTokenizer) -> None:
    ids = (tokenizer.pad_id, tokenizer.unk_id, tokenizer.cls_id, tokenizer.sep_id, tokenizer.mask_id)
    assert ids == (0, 1, 2, 3, 4)
    assert tokenizer.num_special == 5
    assert tokenizer.vocab_size <= 400


def test_a_mask_in_a_text_is_the_mask_token(tokenizer: TextTokenizer) -> None:
    masked, plain = (tokenizer.encode([t])[0] for t in ("The movie was [MASK].", "the movie was bad."))
    assert (masked == tokenizer.mask_id).sum() == 1
    assert masked[-1] == plain[-1]  # what follows is what follows a word
    assert tokenizer.token(tokenizer.mask_id) == "[MASK]"
    twice, start = tokenizer.encode(["[MASK] [MASK] movie", "[MASK] movie"])
    assert twice.tolist() == [4, 4, *plain[1 : 2 + len(twice) - 3].tolist()]
    assert start.tolist() == twice[1:].tolist()
    assert "[MASK]" in tokenizer.decode(masked, special=True)
    assert "MASK" not in tokenizer.decode(masked)
    assert tokenizer.mask_id not in tokenizer.encode(["The movie was [MASK]."], special=False)[0]


def test_rows_are_truncated_and_padded(tokenizer: TextTokenizer) -> None:
    texts = ["the movie was bad.", "", "[MASK]"]
    rows = tokenizer.encode_rows(texts, 3)
    assert rows.shape == (3, 3)
    assert rows[0].tolist() == tokenizer.encode(texts)[0][:3].tolist()
    assert rows[1].tolist() == [tokenizer.pad_id] * 3
    assert tokenizer.mask_id not in rows


def test_bytes_round_trip(tmp_path: Path) -> None:
    tokenizer = trained(tmp_path / "t.json", lowercase=False)
    for text in ("naïve café", "日本語のテキスト", "🎬 was 👍🏽!", "a\u0000b", "tab\tand\nline", "don't"):
        (ids,) = tokenizer.encode([text])
        assert tokenizer.decode(ids) == text
        assert tokenizer.unk_id not in ids
    lower = trained(tmp_path / "l.json")
    assert lower.decode(lower.encode(["The CAFE\u0301"])[0]) == "the caf\u00e9"  # composed, lower case


def test_training_bpe_twice_gives_one_file(tmp_path: Path) -> None:
    assert trained(tmp_path / "a.json").identity == trained(tmp_path / "b.json").identity
    assert trained(tmp_path / "c.json", lowercase=False).identity != trained(tmp_path / "a.json").identity


def test_word_starts(tokenizer: TextTokenizer) -> None:
    starts = tokenizer.word_starts
    assert starts.shape == (tokenizer.vocab_size,)
    assert starts.dtype == bool
    assert starts[:5].all()
    (ids,) = tokenizer.encode(["a movie, unbelievableness was bad"])
    words, current = [], ""
    for id_ in ids:
        if starts[id_] and current:
            words.append(current)
            current = ""
        current += tokenizer.token(int(id_))
    assert [*words, current] == ["a", "movie", ",", "unbelievableness", "was", "bad"]


def test_contractions_are_one_word(tmp_path: Path) -> None:
    tokenizer = trained(tmp_path / "t.json")
    (ids,) = tokenizer.encode(["i didn't"])
    assert tokenizer.word_starts[ids].sum() == 1  # "i" opens the text, "didn't" starts, "'t" continues


def test_cached_by_corpus_and_configuration() -> None:
    asked = []

    def sample(size: int) -> list[str]:
        asked.append(size)
        return TEXTS

    first = prepare_tokenizer(sample, {"corpus": 1}, vocab_size=300, sample_mb=2)
    again = prepare_tokenizer(sample, {"corpus": 1}, vocab_size=300, sample_mb=2)
    assert asked == [2_000_000]
    assert again.path == first.path
    assert again.identity == first.identity
    other = [
        prepare_tokenizer(sample, {"corpus": 2}, vocab_size=300, sample_mb=2),
        prepare_tokenizer(sample, {"corpus": 1}, vocab_size=301, sample_mb=2),
        prepare_tokenizer(sample, {"corpus": 1}, vocab_size=300, sample_mb=2, lowercase=False),
        prepare_tokenizer(sample, {"corpus": 1}, vocab_size=300, sample_mb=2, kind="wordpiece"),
    ]
    assert len({t.path for t in [first, *other]}) == 5
    by_name = prepare_tokenizer(sample, {}, name=str(first.path.parent))
    assert by_name.identity == first.identity
    assert len(asked) == 5


def test_fewer_tokens_than_asked_is_said(caplog: pytest.LogCaptureFixture) -> None:
    tokenizer = prepare_tokenizer(lambda size: TEXTS, {}, vocab_size=50_000)
    assert tokenizer.vocab_size < 1000
    assert f"supports {tokenizer.vocab_size} tokens, not 50000" in caplog.text


def test_two_processes_at_once_get_the_same_file() -> None:
    # WordPiece training differs from time to time, so equal identities mean one training
    command = [sys.executable, "-c", SCRIPT]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [process.communicate(timeout=60)[0].split()[-1] for process in processes]
    assert outputs[0] == outputs[1]
    assert len(outputs[0]) == 64


def no_sample(size: int) -> list[str]:
    raise AssertionError


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "unigram"}, r"data\.tokenizer\.kind=unigram: give bpe or wordpiece"),
        ({"vocab_size": 100}, r"data\.tokenizer\.vocab_size=100: give at least 261"),
        ({"sample_mb": 0}, r"data\.tokenizer\.sample_mb=0"),
    ],
)
def test_settings_that_cannot_be(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        prepare_tokenizer(no_sample, {}, **settings)


def test_names_that_lead_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: str) -> str:
        raise OSError("no network")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", offline)
    with pytest.raises(ValueError, match=r"data\.tokenizer\.name=some/name: .*no network.*Give a tokenizer\.json"):
        prepare_tokenizer(no_sample, {}, name="some/name")
    path = tmp_path / "tokenizer.json"
    path.write_text("{}")
    with pytest.raises(ValueError, match=r"tokenizer\.json is not a tokenizer\.json"):
        prepare_tokenizer(no_sample, {}, name=str(path))


def edited(path: Path, change: Callable[[dict], None]) -> str:
    trained(path)
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    return str(path)


def test_tokenizers_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    def drop_mask(content: dict) -> None:
        content["added_tokens"] = [t for t in content["added_tokens"] if t["content"] != "[MASK]"]
        content["model"]["vocab"]["nothing"] = content["model"]["vocab"].pop("[MASK]")

    with pytest.raises(ValueError, match=r"has no \[MASK\] token"):
        prepare_tokenizer(no_sample, {}, name=edited(tmp_path / "a.json", drop_mask))

    def mask_last(content: dict) -> None:
        vocabulary = content["model"]["vocab"]
        last = max(vocabulary.values())
        swap = next(token for token, id_ in vocabulary.items() if id_ == last)
        vocabulary[swap], vocabulary["[MASK]"] = vocabulary["[MASK]"], last
        for token in content["added_tokens"]:
            token["id"] = vocabulary[token["content"]]

    with pytest.raises(ValueError, match=r"special tokens .* are not its first ids"):
        prepare_tokenizer(no_sample, {}, name=edited(tmp_path / "b.json", mask_last))


def test_truncation_and_padding_of_a_loaded_tokenizer_are_off(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    tokenizer = train_tokenizer(TEXTS, "bpe", 400, True)
    tokenizer.enable_truncation(3)
    tokenizer.enable_padding(length=50)
    tokenizer.save(str(path))
    long, short = TextTokenizer(path).encode(["one two three four five six", "a"])
    assert len(long) > 3
    assert len(short) == 1
    assert np.issubdtype(long.dtype, np.int64)


def test_a_tokenizer_given_by_name_is_promised_as_it_is(tokenizer: TextTokenizer) -> None:
    """A pretrained backbone refuses another vocabulary, so a made-up one would be refused for nothing."""
    promised = expected_tokens({"name": str(tokenizer.path), "vocab_size": 8192})
    assert promised["vocab_size"] == len(promised["word_starts"]) == tokenizer.vocab_size != 8192
    assert (promised["pad_id"], promised["mask_id"]) == (tokenizer.pad_id, tokenizer.mask_id)
    made_up = expected_tokens({"name": None, "vocab_size": 300})
    assert (made_up["vocab_size"], made_up["mask_id"], made_up["num_special"]) == (300, 4, 5)


def test_long_words_are_cut_for_training_only() -> None:
    assert cut_words("a bc\n" + "x" * 200) == "a bc\n" + "x" * 200
    assert cut_words("x" * 401) == " ".join(["x" * 200, "x" * 200, "x"])
    rng = np.random.default_rng(0)
    texts = ["".join(rng.choice(list("ACGT"), 20_000)) for _ in range(5)]  # uncut, these would take minutes
    for kind in ("bpe", "wordpiece"):
        trained = train_tokenizer(texts, kind, 400, True)
        assert max(map(len, trained.get_vocab())) <= 200
        assert trained.decode(trained.encode("acgtacgt").ids) == "acgtacgt"
