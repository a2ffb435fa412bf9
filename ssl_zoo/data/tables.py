"""Rows of CSV, TSV, JSON and JSON lines, and the lines of any text file, compressed or not, unchanged."""

import bz2
import codecs
import csv
import gzip
import json
import lzma
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ssl_zoo.data.splits import split_name

OPENERS: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
"""The function that opens a compressed file, by its last ending."""
JSON_LINES = (".jsonl", ".ndjson")
PLAIN = {".csv", ".tsv", *JSON_LINES, ".json"}
READABLE = PLAIN | {kind + outer for kind in PLAIN for outer in OPENERS}
"""Endings of the tables that are read here; parquet and arrow are read by `datasets`."""
TABLE_DAMAGE = (OSError, EOFError, lzma.LZMAError, zlib.error)
SPLIT_COLUMNS = {"split", "set", "subset", "partition", "fold", "data_set", "dataset"}
"""Names of columns that may contain the split of each row."""
CONTROL = bytes({*range(9), *range(14, 27), *range(28, 32)})
"""Bytes that occur in compressed files, images and office documents, but not in text."""
CELL_LIMIT = 2**30
"""Maximum characters of a cell; the csv module's own limit is 131,072, less than a long document has."""


class TableRow(NamedTuple):
    """One row of a table.

    Attributes:
        where: file and line, for messages.
        cells: by name of the column.
    """

    where: str
    cells: dict[str, Any]


def read_table(path: Path) -> Iterator[TableRow]:
    """Reads the rows of a table, in the format of its ending.

    Cells of CSV and TSV are strings exactly as written, including "NA" and "null"; in TSV a quote is an ordinary
    character. Cells of JSON keep their type.

    Raises:
        ValueError: with file, line and remedy, for a file that is not UTF-8 or no such table, and for a table of
            several splits.
    """
    kind = Path(path.name.removesuffix(path.suffix)).suffix if path.suffix.lower() in OPENERS else path.suffix
    if kind.lower() in (".csv", ".tsv"):
        return _of_one_split(_separated(path, "\t" if kind.lower() == ".tsv" else ","))
    return _of_one_split(_json_lines(path) if kind.lower() in JSON_LINES else _json(path))


def _of_one_split(rows: Iterator[TableRow]) -> Iterator[TableRow]:
    """Passes the rows on and raises ValueError if a column names several splits, which must not all be trained on."""
    found: dict[str, set[str]] = {}
    for row in rows:
        for name, cell in row.cells.items():
            if name.lower() in SPLIT_COLUMNS and isinstance(cell, str) and (split := split_name(cell.strip())):
                found.setdefault(name, set()).add(split)
                if len(found[name]) > 1:
                    raise ValueError(
                        f"{row.where}: the column {name!r} says {' and '.join(sorted(found[name]))}, and a table holds "
                        "one split. Divide it, into train.csv and test.csv or the like, or remove the column"
                    )
        yield row


def _separated(path: Path, separator: str) -> Iterator[TableRow]:
    csv.field_size_limit(CELL_LIMIT)
    tsv = separator == "\t"
    reader = csv.reader(
        read_lines(path, bare_returns=True),
        delimiter=separator,
        quoting=csv.QUOTE_NONE if tsv else csv.QUOTE_MINIMAL,
        strict=not tsv,
    )
    names: list[str] = []
    try:
        for cells in reader:
            if not cells:
                continue
            if not names:
                names = [name.strip() for name in cells]
                _check_header(path, names, separator)
            elif len(cells) != len(names):
                raise ValueError(
                    f"{path}, line {reader.line_num}: {len(cells)} cells, and {len(names)} columns "
                    f"({', '.join(names)}). "
                    + ("Take out the tabs" if tsv else 'Put cells that hold commas in quotes ("), one row per line')
                )
            else:
                yield TableRow(f"{path}, line {reader.line_num}", dict(zip(names, cells, strict=True)))
    except csv.Error as error:
        raise ValueError(
            f"{path}, line {reader.line_num}: not CSV ({error}). Double each quote inside a quoted cell, and close it"
        ) from error
    if not names:
        raise ValueError(f"{path}: an empty table. Give its columns a header line")


def _check_header(path: Path, names: list[str], separator: str) -> None:
    others = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "bars"}
    if len(names) == 1 and (found := [other for other in others if other != separator and other in names[0]]):
        raise ValueError(
            f"{path}: one column, {names[0]!r}: its cells are separated by {others[found[0]]}. "
            "Separate those of .csv by commas (with quotes around cells that hold commas), of .tsv by tabs"
        )
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"{path}: two columns are called {twice[0]!r}. Rename one")


def _json_lines(path: Path) -> Iterator[TableRow]:
    for number, line in enumerate(read_lines(path), start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            cells = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{where}: not JSON ({error}). Give one JSON object per line") from error
        if not isinstance(cells, dict):
            raise ValueError(f"{where}: not a JSON object. Give one JSON object per line")
        yield TableRow(where, cells)


def _json(path: Path) -> Iterator[TableRow]:
    """Reads a list of objects, or one object per line."""
    text = "".join(read_lines(path))
    if not text.lstrip().startswith("["):
        yield from _json_lines(path)
        return
    try:
        rows = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: not JSON ({error}). Give a list of objects, or one object per line") from error
    for number, cells in enumerate(rows, start=1):
        if not isinstance(cells, dict):
            raise ValueError(f"{path}, entry {number}: not a JSON object. Give a list of objects")
        yield TableRow(f"{path}, entry {number}", cells)


def read_lines(path: Path, bare_returns: bool = False) -> Iterator[str]:
    """The lines of a UTF-8 file, including their ends, with or without a byte-order mark.

    Args:
        path: plain, or compressed (.gz, .bz2, .xz).
        bare_returns: whether a carriage return alone ends a line too, as on old Apple computers.

    Raises:
        ValueError: with line and byte that are not UTF-8, or with what the file is instead.
    """
    if not path.is_file():
        raise ValueError(f"{path}: no regular file (a link without a target, or a pipe). Remove it")
    position = 0
    try:
        with OPENERS.get(path.suffix.lower(), open)(path, "rb") as file:
            lines = file if not bare_returns else (piece for line in file for piece in line.splitlines(keepends=True))
            for number, line in enumerate(lines, start=1):
                try:
                    text = line.decode("utf-8-sig" if number == 1 else "utf-8")
                except UnicodeDecodeError as error:
                    raise _not_utf8(path, number, position + error.start, line, error) from error
                if "\0" in text:
                    raise _not_utf8(path, number, position + line.index(b"\0"), line, None)
                yield text
                position += len(line)
    except TABLE_DAMAGE as error:
        raise ValueError(f"{path}: cannot be read ({error or type(error).__name__}). Replace the file") from error


def _not_utf8(path: Path, number: int, byte: int, line: bytes, error: UnicodeDecodeError | None) -> ValueError:
    """The error to raise; `error` is None for a zero byte in a file that is otherwise UTF-8."""
    with OPENERS.get(path.suffix.lower(), open)(path, "rb") as file:
        head = file.read(4096)
    if encoding := _wide_encoding(head):
        found = f"{path}, line {number}, byte {byte}: not UTF-8 but {encoding}"
        return ValueError(f"{found}. Convert the file, e.g. iconv -f {encoding} -t UTF-8")
    if set(head + line) & set(CONTROL) - {0}:
        return ValueError(
            f"{path} is no text: it holds bytes of a compressed file or another kind of data. "
            "Unpack it (.gz, .bz2 and .xz are read as they are), or give a text file"
        )
    if error is None:
        return ValueError(f"{path}, line {number}, byte {byte}: a zero byte. Remove those, e.g. tr -d '\\000'")
    place = f"{path}, line {number}, byte {byte}: not UTF-8 (0x{line[error.start]:02x})"
    return ValueError(f"{place}. Convert the file, e.g. iconv -f latin1 -t UTF-8")


def _wide_encoding(head: bytes) -> str | None:
    """UTF-16 or UTF-32, by the mark at the beginning of a file or by the zeros between its letters; else None."""
    for marks, name in (
        ((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE), "UTF-32"),  # the first begins with UTF-16's
        ((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE), "UTF-16"),
    ):
        if head.startswith(marks):
            return name
    even, odd = head[::2], head[1::2]
    for zeros, letters, name in ((odd, even, "UTF-16LE"), (even, odd, "UTF-16BE")):
        if len(head) > 3 and zeros.count(0) > 0.9 * len(zeros) and letters.count(0) == 0:
            return name
    return None
