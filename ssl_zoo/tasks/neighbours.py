"""`task=neighbours`: the examples that an encoder finds most similar to a query, and near-duplicates and outliers."""

import logging
from collections.abc import Collection, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ssl_zoo import files
from ssl_zoo.data.embeddings import Embeddings, read_embeddings
from ssl_zoo.data.examples import Example, Examples, thumbnail
from ssl_zoo.encoder import Encoder
from ssl_zoo.report.display import to_plain_text, warn_if_display_fails, write_rows
from ssl_zoo.report.sheet import NUM_QUERIES, SHEET_NAME, SIDE, Picture, draw_sheet
from ssl_zoo.similarity import mean_similarities, nearest_rows, normalized, similar_pairs, spread_rows
from ssl_zoo.tasks.embed import embed_data, embed_for_task, open_inputs, open_task
from ssl_zoo.training import run_folder

log = logging.getLogger(__name__)

TABLE_NAME = "neighbours.csv"
MAX_PAIRS = 10_000  # of near-duplicates that are listed
SHOWN_LETTERS = 300
"""Letters of a text that are shown."""
SHOWN = 20
"""Rows of a list that are printed; its file has all."""


class Neighbour(NamedTuple):
    """An example that is similar to a query.

    Attributes:
        query: the query: its row, path or text.
        rank: 1 for the most similar one.
        row: in the embeddings file.
        name: the path of an image file; else split and index.
        split: the split that it belongs to.
        label: the name of its class, None where unknown.
        cosine: of the two vectors, from -1 to 1.
    """

    query: str
    rank: int
    row: int
    name: str
    split: str
    label: str | None
    cosine: float


class Duplicate(NamedTuple):
    """Two examples with nearly the same vector; `exact` if their files, or texts, are equal."""

    row: int
    other: int
    name: str
    other_name: str
    cosine: float
    exact: bool


class Outlier(NamedTuple):
    """An example and the mean cosine of its nearest neighbours."""

    row: int
    name: str
    split: str
    label: str | None
    mean_cosine: float


def find_neighbours(
    encoder: Encoder | str | Path,
    data: str | Path | Examples,
    query: str | Path | int | None = None,
    k: int = 8,
    folder: str | Path | None = None,
    half: bool = False,
    batch_size: int = 64,
    on_error: str = "raise",
    max_skipped: float = 0.01,
    **reading: Any,
) -> list[Neighbour]:
    """Finds the examples of a data set that are most similar to a query, by the cosine of their vectors.

    Args:
        encoder: an encoder, or what `ssl_zoo.load` takes.
        data: a folder of images, a table, a text file, ..., or an open list of examples.
        query: an image file, a text, or the number of a row of the embeddings; None: eight examples spread over the
            data.
        k: neighbours per query.
        folder: where `neighbours.csv`, of images the picture `neighbours.png`, and the embeddings are written, which
            the next call with this folder uses; None: nowhere.
        half: see `embed_data`, as the following ones.
        batch_size: examples per forward pass.
        on_error: "raise" or "skip" unreadable images.
        max_skipped: maximum fraction that may be skipped.
        reading: see `open_examples`.

    Raises:
        ValueError: for a query, an encoder or data that cannot be used.
    """
    encoder, examples = open_inputs(encoder, data, **reading)
    _check_query(encoder, examples, query, k)
    embeddings = embed_data(encoder, examples, folder, half, batch_size, on_error, max_skipped)
    found = _search(encoder, examples, embeddings, query, k)
    if folder is not None:
        _write_neighbours(Path(folder), encoder, examples, embeddings, found)
    return found


def _check_query(encoder: Encoder, examples: Examples, query: str | Path | int | None, k: int) -> None:
    """Raises ValueError for a query that cannot be used, before anything is embedded."""
    if k < 1:
        raise ValueError(f"neighbours.k={k}: give 1 or more")
    if (row := as_row(query)) is not None:
        _check_row(row, len(examples))
    elif query is not None and encoder.modality == "image":
        _query_input(encoder, str(query), examples)
    elif query is not None and not str(query).strip():
        raise ValueError("query: is empty. Give a text, or the number of a row")


def as_row(query: str | Path | int | None) -> int | None:
    """The number of a row, if the query is one."""
    if isinstance(query, int):
        return query
    return int(query) if isinstance(query, str) and query.strip().removeprefix("-").isdecimal() else None


def _check_row(row: int, count: int) -> None:
    if not 0 <= row < count:
        raise ValueError(f"query={row}: there is no such row. Give one from 0 to {count - 1}")


def _query_file(query: str | Path, examples: Examples) -> Path:
    """The image file that a query names, in the working folder or in the data."""
    for path in (Path(query).expanduser(), Path(examples.place).expanduser() / query):
        if path.is_file():
            return path
    raise ValueError(
        f"query={query}: no such image file, here or in {examples.place}. Give one, or a row from 0 to "
        f"{len(examples) - 1}"
    )


def _query_input(encoder: Encoder, query: str | Path, examples: Examples) -> Path | str:
    """What the encoder embeds: the path of an image that can be read, or a text."""
    if encoder.modality == "text":
        return str(query)
    path = _query_file(query, examples)
    try:
        encoder.transform(path)
    except ValueError as error:
        raise ValueError(f"query={query}: cannot be used ({error}). Give another image") from error
    return path


def _search(
    encoder: Encoder, examples: Examples, embeddings: Embeddings, query: str | Path | int | None, k: int
) -> list[Neighbour]:
    unit = normalized(embeddings.vectors)
    row = as_row(query)
    if query is None or row is not None:
        if row is not None:
            _check_row(row, len(embeddings))
        queries = spread_rows(unit, NUM_QUERIES) if row is None else [row]
        names = [str(number) for number in queries]
        rows, cosines = nearest_rows(unit, unit[queries], k, queries)
    else:
        names = [str(query)]
        vector = encoder.embed([_query_input(encoder, str(query), examples)]).numpy()
        rows, cosines = nearest_rows(unit, normalized(vector), k)
    return [
        Neighbour(
            name, rank, int(row), embeddings.name(row), embeddings.splits[row], embeddings.labels[row], float(cosine)
        )
        for name, its_rows, its_cosines in zip(names, rows, cosines, strict=True)
        for rank, (row, cosine) in enumerate(zip(its_rows, its_cosines, strict=True), start=1)
    ]


def check_lists(duplicates: Any, outliers: Any) -> None:
    """Raises ValueError for a threshold that is no cosine, or a number of outliers that is none."""
    is_number = isinstance(duplicates, int | float) and not isinstance(duplicates, bool)
    if duplicates is not None and not (is_number and -1 <= duplicates <= 1):
        raise ValueError(f"neighbours.duplicates={duplicates}: give a cosine up to 1, such as 0.95, or null")
    if outliers is not None and (type(outliers) is not int or outliers < 1):
        raise ValueError(f"neighbours.outliers={outliers}: give a whole number, 1 or more, or null")


def find_near_duplicates(embeddings: Embeddings, examples: Examples, threshold: float) -> list[Duplicate]:
    """Pairs of examples whose cosine is at least `threshold`, the most similar first; at most `MAX_PAIRS` of them.

    Raises:
        ValueError: for a threshold that is no cosine.
    """
    check_lists(threshold, None)
    pairs = similar_pairs(normalized(embeddings.vectors), threshold, MAX_PAIRS)
    shown = _find(examples, embeddings, {row for _, *rows in pairs for row in rows})
    return [
        Duplicate(
            row, other, embeddings.name(row), embeddings.name(other), min(cosine, 1.0), _equal(shown[row], shown[other])
        )
        for cosine, row, other in pairs
    ]


def _equal(one: Example, other: Example) -> bool:
    """Whether two files, encoded images or texts are the same to the byte."""
    contents = []
    for example in (one, other):
        loaded = example.load()
        if isinstance(loaded, Path):
            loaded = loaded.read_bytes()
        contents.append(loaded if isinstance(loaded, str | bytes) else loaded.tobytes())
    return contents[0] == contents[1]


def find_outliers(embeddings: Embeddings, count: int, k: int = 8) -> list[Outlier]:
    """The `count` examples whose k nearest neighbours have the lowest mean cosine, the lowest first.

    Raises:
        ValueError: for a count below 1.
    """
    check_lists(None, count)
    if len(embeddings) < 2:
        return []
    means = mean_similarities(normalized(embeddings.vectors), k)
    return [
        Outlier(int(row), embeddings.name(row), embeddings.splits[row], embeddings.labels[row], float(means[row]))
        for row in means.argsort(kind="stable")[:count]
    ]


# ---- What is shown and written ----


def _write_neighbours(
    folder: Path, encoder: Encoder, examples: Examples, embeddings: Embeddings, found: Sequence[Neighbour]
) -> list[str]:
    """Writes the table and, of images, the sheet; returns the text of each neighbour, "" for images."""
    queries = {neighbour.query: as_row(neighbour.query) for neighbour in found}
    rows = {neighbour.row for neighbour in found} | {row for row in queries.values() if row is not None}
    shown = _find(examples, embeddings, rows)
    texts = [""] * len(found)
    if examples.modality == "text":
        texts = [to_plain_text(str(shown[neighbour.row].load()))[:SHOWN_LETTERS] for neighbour in found]
    columns = [*Neighbour._fields, *(["text"] if any(texts) else [])]
    table = [[*neighbour[:-1], round(neighbour.cosine, 4), text] for neighbour, text in zip(found, texts, strict=True)]
    write_rows(folder / TABLE_NAME, columns, [row[: len(columns)] for row in table])
    if examples.modality == "image":
        files.write_atomically(folder / SHEET_NAME, _sheet(encoder, examples, embeddings, found, shown))
    return texts


def _find(examples: Examples, embeddings: Embeddings, rows: Collection[int]) -> dict[int, Example]:
    """The examples of some rows of the embeddings."""
    found = examples.find({embeddings.key(row) for row in rows})
    return {row: found[embeddings.key(row)] for row in rows}


def _sheet(
    encoder: Encoder,
    examples: Examples,
    embeddings: Embeddings,
    found: Sequence[Neighbour],
    shown: Mapping[int, Example],
) -> bytes:
    def picture(encoded: Any, name: str, note: str, matches: bool | None = None) -> Picture:
        image = thumbnail(encoded, name, encoder.inputs["in_chans"], encoder.inputs.get("bits") or 16, SIDE)
        return Picture(image, Path(name).name, note, matches)

    rows: list[list[Picture]] = []
    for query, its in groupby(found, lambda neighbour: neighbour.query):
        row, label = as_row(query), None
        if row is None:
            path = _query_file(query, examples)
            rows.append([picture(path, path.name, "")])
        else:
            label = embeddings.labels[row]
            rows.append([picture(shown[row].load(), embeddings.name(row), label or "")])
        for neighbour in its:
            note = f"{neighbour.cosine:.2f} {neighbour.label or ''}"
            matches = neighbour.label == label if label is not None and neighbour.label is not None else None
            rows[-1].append(picture(shown[neighbour.row].load(), neighbour.name, note, matches))
    return draw_sheet(rows, f"Nearest neighbours in {examples.place}")


def _print_neighbours(found: Sequence[Neighbour], texts: Sequence[str]) -> None:
    table = Table("query", "rank", "row", "name", "label", "cosine", *(["text"] if any(texts) else []))
    for i, neighbour in enumerate(found):
        first = neighbour.rank == 1
        cells = [neighbour.query if first else "", neighbour.rank, neighbour.row, neighbour.name, neighbour.label or ""]
        cells += [f"{neighbour.cosine:.3f}", *([texts[i]] if any(texts) else [])]
        is_last = i + 1 == len(found) or found[i + 1].rank == 1
        table.add_row(*(Text(to_plain_text(str(cell))) for cell in cells), end_section=is_last)
    Console().print(table)


def _print_rows(title: str, names: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    table = Table(*names, title=f"{title}: {len(rows):,}", title_justify="left")
    for row in rows[:SHOWN]:
        cells = (f"{cell:.3f}" if isinstance(cell, float) else "" if cell is None else str(cell) for cell in row)
        table.add_row(*(Text(to_plain_text(cell)) for cell in cells))
    Console().print(table)
    if len(rows) > SHOWN:
        log.info(f"and {len(rows) - SHOWN:,} more, in the file")


def neighbours(cfg: DictConfig, folder: Path) -> None:
    """Shows the neighbours of `query`, or of eight examples, and lists near-duplicates and outliers on request."""
    settings = cfg.neighbours
    with run_folder.lock_folder(folder):
        encoder, examples = open_task(cfg, folder)
        _check_query(encoder, examples, cfg.query, settings.k)
        check_lists(settings.duplicates, settings.outliers)
        embeddings = read_embeddings(embed_for_task(cfg, folder, encoder, examples))
        found = _search(encoder, examples, embeddings, cfg.query, settings.k)
        texts = _write_neighbours(folder, encoder, examples, embeddings, found)
        lists: list[tuple[str, Sequence[str], Sequence[Sequence[Any]]]] = []
        if settings.duplicates is not None:
            pairs = find_near_duplicates(embeddings, examples, settings.duplicates)
            lists.append(("duplicates", Duplicate._fields, pairs))
        if settings.outliers is not None:
            lists.append(("outliers", Outlier._fields, find_outliers(embeddings, settings.outliers, settings.k)))
        for name, columns, rows in lists:
            write_rows(folder / f"{name}.csv", columns, rows)
    with warn_if_display_fails("the table of neighbours"):
        if cfg.query is not None or any(texts):
            _print_neighbours(found, texts)
        for name, columns, rows in lists:
            _print_rows(name, columns, rows)
        written = [TABLE_NAME, *([SHEET_NAME] if not any(texts) else []), *(f"{name}.csv" for name, *_ in lists)]
        log.info(f"neighbours: {', '.join(str(folder / name) for name in written)}")
