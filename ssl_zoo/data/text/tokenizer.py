"""The tokenizer: trained on the corpus at first use and cached, or loaded by name."""

import hashlib
import json
import logging
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from ssl_zoo.data.cache import cached

log = logging.getLogger(__name__)

SPECIAL_TOKENS = {
    "pad": ("[PAD]", "<pad>"),
    "unk": ("[UNK]", "<unk>"),
    "cls": ("[CLS]", "<s>"),
    "sep": ("[SEP]", "</s>"),
    "mask": ("[MASK]", "<mask>"),
}
"""The token of each role, under its names in common tokenizers. In tokenizers trained here they have ids 0 to 4."""
CONTINUES = {"WordPiece": "##"}
"""Prefix, by kind of tokenizer, of tokens that continue a word."""
BEGINS = {"ByteLevel": "Ġ", "Metaspace": "▁"}
"""Prefix, by kind of tokenizer, of tokens that begin a word."""
LONG_WORD = re.compile(r"(\S{200})(?=\S)")
"""Where words are split for training, whose time grows with the square of the length of the longest word."""


class TextTokenizer:
    """Converts texts to token ids and back.

    Attributes:
        path: the tokenizer.json.
        content: of that file.
        identity: sha256 of that file, by which token stores and checkpoints refer to it.
        pad_id: as unk_id, cls_id, sep_id and mask_id, 0 to 4 unless loaded by name.
        num_special: ids below it are special.
        vocab_size: number of ids.
    """

    def __init__(self, path: Path, content: bytes | None = None):
        """Loads the file.

        Args:
            path: the tokenizer.json.
            content: of the file, if it has been read already, for example out of another file.

        Raises:
            ValueError: when it is no tokenizer, lacks a special token or has one among ordinary ones.
        """
        self.read(path, path.read_bytes() if content is None else content)
        ids = {role: self._special_id(*names) for role, names in SPECIAL_TOKENS.items()}
        self.pad_id = ids["pad"]
        self.unk_id = ids["unk"]
        self.cls_id = ids["cls"]
        self.sep_id = ids["sep"]
        self.mask_id = ids["mask"]
        self.num_special = max(ids.values()) + 1
        if self.num_special > self.vocab_size // 2:
            raise ValueError(
                f"data.tokenizer.name: the special tokens of {path} are not its first ids ({ids}), so they "
                "cannot be distinguished from words. Choose another (BERT's has them first), or train one: "
                "data.tokenizer.kind=bpe"
            )

    def read(self, path: Path, content: bytes) -> None:
        """Reads the file, without looking for special tokens.

        Raises:
            ValueError: when it is no tokenizer.
        """
        self.path = path
        self.content = content
        self.identity = hashlib.sha256(content).hexdigest()
        try:
            self._tokenizer = Tokenizer.from_buffer(content)
        except Exception as error:  # the Rust library raises nothing more specific
            raise ValueError(f"data.tokenizer: {path} is not a tokenizer.json ({error})") from error
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self.vocab_size: int = self._tokenizer.get_vocab_size()
        self._decoder: str = (json.loads(content)["decoder"] or {}).get("type", "")

    def _special_id(self, *names: str) -> int:
        found = [id_ for name in names if (id_ := self._tokenizer.token_to_id(name)) is not None]
        if not found:
            raise ValueError(f"data.tokenizer.name: {self.path} has no {names[0]} token. Choose another tokenizer")
        return found[0]

    def _piece(self, id_: int) -> str:
        """The token as in the vocabulary, "" for an id that is not used."""
        return self._tokenizer.id_to_token(id_) or ""

    def encode(self, texts: Sequence[str], special: bool = True) -> list[np.ndarray]:
        """The ids of each text, (length,) int64, without [CLS] and [SEP].

        Args:
            texts: any number.
            special: whether "[MASK]" in a text means the mask token; if not, it is ordinary text.
        """
        self._tokenizer.encode_special_tokens = not special
        encodings = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [np.array(encoding.ids, dtype=np.int64) for encoding in encodings]

    def encode_rows(self, texts: Sequence[str], length: int) -> np.ndarray:
        """The ids of each text, truncated and padded at the end: (n, length) int64; "[MASK]" is ordinary text."""
        rows = np.full((len(texts), length), self.pad_id, dtype=np.int64)
        for row, ids in zip(rows, self.encode(texts, special=False), strict=True):
            row[: len(ids)] = ids[:length]
        return rows

    def decode(self, ids: Iterable[int], special: bool = False) -> str:
        """The text of some ids; `special` keeps special tokens as "[MASK]" and so on."""
        text: str = self._tokenizer.decode([int(id_) for id_ in ids], skip_special_tokens=not special)
        mask = self._piece(self.mask_id)
        return text.replace(mask, f" {mask}").replace(f"  {mask}", f" {mask}").strip() if special else text

    def token(self, id_: int) -> str:
        """A token for display, without the prefix "##", "Ġ" or "▁" that marks its place in a word."""
        if self._decoder in CONTINUES:
            return self._piece(id_).removeprefix(CONTINUES[self._decoder])
        return self.decode([id_], special=True).strip()

    @property
    def word_starts(self) -> np.ndarray:
        """Whether each id begins a word, (V,) bool; the others continue the token to their left.

        Special tokens begin a word. Byte-level BPE marks what follows a space; punctuation begins a word too, except
        for an apostrophe ("don't").
        """
        tokens = [self._piece(id_) for id_ in range(self.vocab_size)]
        if self._decoder in CONTINUES:
            starts = [not token.startswith(CONTINUES[self._decoder]) for token in tokens]
        else:
            mark = BEGINS.get(self._decoder, "Ġ")
            starts = [token.startswith(mark) or _is_punctuation(token) for token in tokens]
        return np.array(starts) | (np.arange(self.vocab_size) < self.num_special)


def _is_punctuation(token: str) -> bool:
    return token.isascii() and not token[:1].isalnum() and not token.startswith("'")


def expected_tokens(settings: dict[str, Any]) -> dict[str, Any]:
    """Facts that follow from `data.tokenizer` before one is trained; for one loaded by name its true facts.

    Raises:
        ValueError: for a name that cannot be found.
    """
    if settings.get("name") is not None:
        known = TextTokenizer(_find(settings["name"]))
        ids = {f"{role}_id": getattr(known, f"{role}_id") for role in SPECIAL_TOKENS}
        starts = "".join("01"[start] for start in known.word_starts.astype(int))
        return {"vocab_size": known.vocab_size, "num_special": known.num_special, "word_starts": starts, **ids}
    size = settings.get("vocab_size", 8192)
    ids = {f"{role}_id": number for number, role in enumerate(SPECIAL_TOKENS)}
    return {"vocab_size": size, "num_special": len(SPECIAL_TOKENS), "word_starts": "1" * size, **ids}


def prepare_tokenizer(
    sample: Callable[[int], list[str]],
    key: dict[str, Any],
    name: str | None = None,
    kind: str = "bpe",
    vocab_size: int = 8192,
    lowercase: bool = True,
    sample_mb: float = 10,
) -> TextTokenizer:
    """The tokenizer that `data.tokenizer` describes, trained now if it is not in the cache.

    Args:
        sample: returns texts of about the given number of bytes to train on.
        key: JSON values that determine the corpus.
        name: a tokenizer.json, a folder with one, or a Hub id; the other settings are then ignored.
        kind: "bpe" (byte-level, reproducible) or "wordpiece" (training is not reproducible: tokenizers issue 1794).
        vocab_size: maximum number of tokens; a small corpus supports fewer, which is logged and shown in the facts.
        lowercase: whether texts are lowercased.
        sample_mb: megabytes of text to train on.

    Raises:
        ValueError: for an unknown kind, a vocabulary smaller than the alphabet, or a name that cannot be found.
    """
    if name is not None:
        return TextTokenizer(_find(name))
    if kind not in ("bpe", "wordpiece"):
        raise ValueError(
            f"data.tokenizer.kind={kind}: give bpe or wordpiece, or data.tokenizer.name for an existing one"
        )
    minimum = len(SPECIAL_TOKENS) + 256
    if vocab_size < minimum:
        raise ValueError(
            f"data.tokenizer.vocab_size={vocab_size}: give at least {minimum} "
            f"(256 bytes, {len(SPECIAL_TOKENS)} special)"
        )
    if sample_mb <= 0:
        raise ValueError(f"data.tokenizer.sample_mb={sample_mb}: give a positive number of megabytes to train on")
    settings = {"kind": kind, "vocab_size": vocab_size, "lowercase": lowercase, "sample_mb": sample_mb}

    def build(folder: Path) -> None:
        log.info("training a %s tokenizer of %d tokens", kind, vocab_size)
        trained = train_tokenizer(sample(int(sample_mb * 1e6)), kind, vocab_size, lowercase)
        trained.save(str(folder / "tokenizer.json"))

    full_key = {"version": 1, "tokenizers": tokenizers.__version__, **settings, "corpus": key}
    tokenizer = TextTokenizer(cached("tokenizer", full_key, build) / "tokenizer.json")
    if tokenizer.vocab_size != vocab_size:
        log.warning("the corpus supports %d tokens, not %d", tokenizer.vocab_size, vocab_size)
    return tokenizer


def train_tokenizer(texts: Iterable[str], kind: str, vocab_size: int, lowercase: bool) -> Tokenizer:
    """Trains a tokenizer of at most `vocab_size` tokens, the special ones first.

    The mask token includes the space before it, so that a word to be predicted has its leading space. Words of more
    than 200 characters, such as DNA sequences, are split here, but not when texts are tokenized.
    """
    special = [name for name, _ in SPECIAL_TOKENS.values()]
    tokens = [AddedToken(name, special=True, normalized=False, lstrip=name == "[MASK]") for name in special]
    if kind == "bpe":
        tokenizer = Tokenizer(models.BPE())
        tokenizer.normalizer = normalizers.Sequence([normalizers.NFC()] + [normalizers.Lowercase()] * lowercase)
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        trainer: Any = trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=tokens,
            initial_alphabet=alphabet,
            min_frequency=2,
            show_progress=True,
        )
    else:
        tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        tokenizer.decoder = decoders.WordPiece()
        # Each character takes two ids, at the start of a word and within: leave most ids to words.
        trainer = trainers.WordPieceTrainer(
            vocab_size=vocab_size, special_tokens=tokens, limit_alphabet=min(1000, vocab_size // 8), show_progress=True
        )
    tokenizer.train_from_iterator(map(cut_words, texts), trainer)
    return tokenizer


def cut_words(text: str) -> str:
    """Inserts a space after each 200 characters of a longer word."""
    return LONG_WORD.sub(r"\1 ", text)


def _find(name: str) -> Path:
    place = Path(name).expanduser()
    if place.is_dir():
        place = place / "tokenizer.json"
    if place.is_file():
        return place
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        return Path(hf_hub_download(name, "tokenizer.json"))
    except (OSError, ValueError, HfHubHTTPError) as error:  # no network, no such id, no such file
        raise ValueError(
            f"data.tokenizer.name={name}: no tokenizer.json here and none from the Hub ({str(error).splitlines()[0]}). "
            "Give a tokenizer.json, a folder with one, or a Hub id; or train one: data.tokenizer.name=null"
        ) from error
