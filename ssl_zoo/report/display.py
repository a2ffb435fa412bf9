"""Escapes user-supplied names for display, so that they are never read as markup, formulas or control characters.

Class names, experiment names and error messages end up on terminals, in Markdown, HTML, spreadsheets and figures, each
of which gives some characters a meaning. Apply `to_plain_text` first, then the escape of the output format
(`html.escape` for HTML). Only the standard library is used, as in `results.py`. Display can still fail: see
`warn_if_display_fails`.
"""

import csv
import io
import logging
import os
import re
import sys
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ssl_zoo import files

log = logging.getLogger(__name__)

_ESCAPES = re.compile(r"\x1b(?:\[[0-9;?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\-_])?")
_JOINERS = "\u200c\u200d"  # used within words of some scripts and within emoji
_MARKDOWN = re.compile(r"([\\|`*\[\]$])")


def to_plain_text(value: Any) -> Any:
    """Returns `value` with every string in it, including keys, as one line without escape sequences.

    Sequences of white space become one space. Control characters, characters that change the writing direction, and
    surrogates that cannot be encoded as UTF-8 become U+FFFD.
    """
    if isinstance(value, dict):
        return {to_plain_text(key): to_plain_text(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain_text(item) for item in value]
    if not isinstance(value, str):
        return value
    text = " ".join(_ESCAPES.sub("", value).split())
    return "".join("\ufffd" if _is_control(letter) else letter for letter in text)


def _is_control(letter: str) -> bool:
    return letter not in _JOINERS and unicodedata.category(letter) in ("Cc", "Cf", "Cs", "Co")


def escape_markdown(text: str) -> str:
    """Escapes text for a cell of a Markdown table: links, emphasis, code, formulas and HTML are shown literally."""
    return _MARKDOWN.sub(r"\\\1", to_plain_text(text)).replace("&", "&amp;").replace("<", "&lt;")


def escape_spreadsheet(text: str) -> str:
    """Escapes text for a CSV cell: prefixes what a spreadsheet would interpret as a formula with an apostrophe."""
    text = to_plain_text(text)
    return f"'{text}" if text[:1] in ("=", "+", "-", "@") else text


def escape_figure_text(text: str) -> str:
    """Escapes text for matplotlib: `$` is literal, and names that start with `_` stay in the legend; keeps newlines."""
    lines = [to_plain_text(line).replace("\\$", "$").replace("$", r"\$") for line in text.split("\n")]
    return "\n".join(f" {line}" if line.startswith("_") else line for line in lines)


def replace_unencodable() -> None:
    """Makes stdout and stderr replace characters that they cannot encode, as on an ASCII terminal."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")


@contextmanager
def warn_if_display_fails(what: str) -> Iterator[None]:
    """Context manager for display only: any exception inside becomes a warning.

    If stdout has been closed, as with `| head`, later output of the process is discarded.

    Args:
        what: what is displayed, for the warning.
    """
    try:
        yield
        sys.stdout.flush()
    except Exception as error:  # from matplotlib, the terminal or the disk
        if isinstance(error, BrokenPipeError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        log.warning("%s could not be shown (%s: %s)", what, type(error).__name__, error)


def write_rows(path: Path, names: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Writes a CSV file; texts are escaped for spreadsheets."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    for row in rows:
        writer.writerow([escape_spreadsheet(cell) if isinstance(cell, str) else cell for cell in row])
    files.write_atomically(path, text.getvalue())
