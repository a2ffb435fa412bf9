"""Values from files that others may have written: only plain ones are accepted, which name neither code nor files."""

import re
from typing import Any

_WORD = re.compile(r"[\w.+-]+(/[\w.+-]+)?", re.ASCII)
"""Strings that are accepted: a word or a Hub id, but no absolute path, URL, interpolation or markup."""


def check_plain(name: str, value: Any, where: str) -> None:
    """Raises ValueError unless `value` is null, a number, a word, or a list of these.

    Args:
        name: the value's key, for the message.
        value: what was read.
        where: the kind of file it was read from, for the message.
    """
    if isinstance(value, list | tuple):
        for item in value:
            check_plain(name, item, where)
    elif isinstance(value, str):
        if not _WORD.fullmatch(value):
            raise ValueError(f"{name}={value[:80]!r} of the {where} is no plain value, a word or a number")
    elif value is not None and not isinstance(value, bool | int | float):
        raise ValueError(f"{name} of the {where} is no plain value, but of type {type(value).__name__}")
