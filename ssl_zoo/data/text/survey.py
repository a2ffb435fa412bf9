"""What a file, table or folder of text holds, found in bounded time and before anything is built; and the picks."""

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple

import numpy as np

from ssl_zoo.data.labels import as_label, describe_labels, held_out_share, limit_labels, sort_names
from ssl_zoo.data.layout import abbreviate
from ssl_zoo.data.locate import as_path
from ssl_zoo.data.picks import Findings, Pick, is_open, pick_batch_size
from ssl_zoo.data.text.corpus import Corpus, choose_corpus
from ssl_zoo.data.text.files import TextFiles
from ssl_zoo.data.text.sources import open_texts

DOCUMENTS = 20_000
"""Maximum number of documents that are read of each split."""
TRIED_ROWS = 200
"""Rows of a table that decide which columns hold texts and labels."""
TEXT_COLUMNS = ("text", "sentence", "content", "review", "body", "document", "abstract", "message", "comment")
"""Usual names of columns of texts; data.text_column names another."""
LABEL_COLUMNS = ("label", "labels", "class", "target", "category", "cls")
"""Usual names of columns of labels; data.label_column names another."""
MAX_BATCH = 64
"""Largest batch to pick for text, whose examples are long."""
CHARACTERS_PER_TOKEN = 4
"""Of English with some 8,000 tokens; half of it counts as sure."""


class Documents(NamedTuple):
    """The documents of one use, "train" or "test".

    Attributes:
        lengths: (n,) int64, in characters; empty documents are left out.
        hashes: (n,) uint64.
        labels: the class of each, None where unknown.
        is_complete: whether there are no more.
    """

    lengths: np.ndarray
    hashes: np.ndarray
    labels: list[str | None]
    is_complete: bool


def survey_texts(settings: Mapping[str, Any], uses_windows: bool, uses_labels: bool = False) -> Findings:
    """Surveys the text that `settings` name, and picks what is "auto" in them.

    Args:
        settings: the keys of conf/data/text_folder.yaml.
        uses_windows: whether the views cut documents, so that each is an example; else examples are packed rows.
        uses_labels: whether the method trains on labelled examples only.

    Raises:
        ValueError: for data that is missing or ambiguous, or a single document.
    """
    path = as_path(settings["path"])
    names = {key: settings.get(key) for key in ("root", "name", "documents")}
    columns = [key for key in ("text_column", "label_column") if is_open(settings, key)]
    source = open_texts(path, **names, text_column="text", label_column=None)
    picks = _pick_columns(path, source.sample_rows(TRIED_ROWS), columns) if columns else []
    chosen = {key: settings.get(key) for key in ("text_column", "label_column")}
    chosen |= {pick.key.removeprefix("data."): pick.value for pick in picks}
    source = open_texts(path, **names, text_column=chosen["text_column"] or "text", label_column=chosen["label_column"])
    corpus = choose_corpus(source, settings.get("splits"), settings.get("heldout"), dict(settings.get("replace") or {}))

    # ---- What is there ----
    undecodable: list[str] = []
    train, test = _read(corpus, undecodable)
    if not undecodable and not len(train.lengths):
        raise ValueError(f"data.path={path}: holds no text. Give files with text in them")
    labels = [label for label in train.labels if label is not None]
    num_test = 0 if corpus.test is None else len(test.lengths)
    if corpus.test is None:
        num_test = round(len(train.lengths) * held_out_share(len(labels) or len(train.lengths), corpus.heldout))
    num_documents = len(train.lengths) - (num_test if corpus.test is None else 0)
    if not undecodable and num_documents < 2:
        raise ValueError(
            f"data.path={path}: {len(train.lengths)} document, of which none can be held out. Give more, or "
            "data.documents=line or blank to divide it"
        )

    # ---- Picks ----
    class_names = sort_names(labels)
    numbers = {name: number for number, name in enumerate(class_names)}
    known = np.array([numbers.get(label, -1) if label is not None else -1 for label in train.labels], dtype=np.int64)
    kept = limit_labels(known, settings.get("labels_per_class"), settings.get("label_fraction"), 0)
    share = num_documents / max(len(train.lengths), 1)
    tokens = int(train.lengths.sum() * share / CHARACTERS_PER_TOKEN)
    rows, what = tokens // settings["row_length"], "packed rows at least"
    if uses_labels or uses_windows or settings.get("train_rows") in ("documents", "labelled"):
        rows, what = (int((kept >= 0).sum() * share) if uses_labels else num_documents), "documents"
    if is_open(settings, "batch_size"):
        picks.append(pick_batch_size(rows // 2 if what != "documents" else rows, MAX_BATCH, what))

    # ---- The report ----
    lines = [
        ("data", path),
        ("documents", _count_documents(train, test, corpus, num_test)),
        ("length", _describe_lengths(train.lengths)),
        ("classes", describe_labels(kept, class_names) if labels else "no labels: what needs them is skipped"),
        ("duplicates", _describe_duplicates(train, test)),
        (
            "encoding",
            f"{len(undecodable)} that are no UTF-8 text, such as {undecodable[0]}" if undecodable else "UTF-8",
        ),
    ]
    return Findings(lines, picks, undecodable[:1], max(rows, 1), train.is_complete)


def _pick_columns(path: str, rows: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> list[Pick]:
    """Picks data.text_column and data.label_column by the names and the cells of the first rows."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    if not rows:  # plain text has no columns
        values = {"text_column": "text", "label_column": None}
        return [Pick(f"data.{key}", values[key], "plain text has no columns") for key in keys]
    listed = f"columns: {abbreviate(names)}"
    picks = []
    if "text_column" in keys:
        picks.append(Pick("data.text_column", _text_column(path, rows, names), listed))
    if "label_column" in keys:
        usual = [name for name in names if name.lower() in LABEL_COLUMNS and _holds_classes(rows, name)]
        found = usual[0] if len(usual) == 1 else None
        why = listed if found else f"none is called {', '.join(LABEL_COLUMNS)} and holds classes; {listed}"
        picks.append(Pick("data.label_column", found, why))
    return picks


def _text_column(path: str, rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> str:
    """The column of texts: the only one with a usual name, else the one with by far the longest cells."""
    sizes = {}
    for name in names:
        cells = [row[name] for row in rows if row.get(name) is not None]
        if cells and not any(isinstance(cell, str | int | float | list) for cell in cells):
            raise ValueError(
                f"data.path={path}: its column {name} holds images or other data. For images give data=folder"
            )
        if cells and all(isinstance(cell, str) for cell in cells):
            sizes[name] = sum(len(cell) for cell in cells)
    usual = [name for usual_name in TEXT_COLUMNS for name in sizes if name.lower() == usual_name]
    if usual:
        return usual[0]
    longest = sorted(sizes, key=lambda name: -sizes[name])
    if longest and (len(longest) == 1 or sizes[longest[0]] > 2 * sizes[longest[1]]):
        return longest[0]
    raise ValueError(
        f"data.text_column=auto: {path} does not tell which column holds the texts. Give one of {abbreviate(names)}"
    )


def _holds_classes(rows: Sequence[Mapping[str, Any]], name: str) -> bool:
    """Whether the cells of a column name classes, fewer than half as many as there are rows."""
    try:
        labels = {as_label(row.get(name), "") for row in rows} - {None}
    except ValueError:
        return False
    return 1 < len(labels) <= max(2, len(rows) // 2)


def _read(corpus: Corpus, undecodable: list[str]) -> tuple[Documents, Documents]:
    """Reads up to `DOCUMENTS` documents of each split for "train" and "test"; appends what cannot be read."""
    found = []
    for splits in ([split for split in corpus.splits() if split != corpus.test], [corpus.test]):
        lengths, hashes, labels, is_complete = [], [], [], True
        for split in filter(None, splits):
            try:
                texts = list(islice(corpus.texts(split), DOCUMENTS + 1))
            except ValueError as error:
                if not _is_encoding(error):
                    raise
                undecodable += corpus.source.undecodable(DOCUMENTS) if isinstance(corpus.source, TextFiles) else []
                undecodable[:] = dict.fromkeys(undecodable or [str(error)])
                is_complete = False
                continue
            is_complete = is_complete and len(texts) <= DOCUMENTS
            texts = [text for text in texts[:DOCUMENTS] if text.text]
            lengths += [len(text.text) for text in texts]
            hashes += [text.hash for text in texts]
            labels += [text.label for text in texts]
        found.append(Documents(np.array(lengths, int), np.array(hashes, np.uint64), labels, is_complete))
    return found[0], found[1]


def _is_encoding(error: ValueError) -> bool:
    """Whether a file is no text in UTF-8, which `tables.read_lines` says in these words."""
    return any(words in str(error) for words in ("not UTF-8", "is no text", "a zero byte"))


def _count_documents(train: Documents, test: Documents, corpus: Corpus, num_test: int) -> str:
    limits = [f"{DOCUMENTS:,} of each split were read"] if not (train.is_complete and test.is_complete) else []
    more = "" if train.is_complete else "more than "
    if corpus.test is not None:
        described = f"{more}{len(train.lengths):,} to train, {len(test.lengths):,} to test (split {corpus.test})"
    else:
        described = f"{more}{len(train.lengths):,}, of which about {num_test:,} are held out (data.heldout=0: none)"
    return "; ".join([described, *limits])


def _describe_lengths(lengths: np.ndarray) -> str:
    if not len(lengths):
        return "not known"
    return f"{int(np.median(lengths)):,} characters (median), {lengths.max():,} (maximum), {lengths.sum():,} together"


def _describe_duplicates(train: Documents, test: Documents) -> str:
    extra = len(train.hashes) - len(np.unique(train.hashes))
    leaked = int(np.isin(test.hashes, train.hashes).sum())
    described = f"{extra:,} exact" if extra else "none"
    if leaked:
        described += (
            f". Warning: {leaked:,} test documents are training documents too, so accuracies are too good. Remove them"
        )
    return described
