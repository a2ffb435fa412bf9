"""A document, and what all sources of documents share."""

from typing import Any, NamedTuple


class Document(NamedTuple):
    """One document of a source.

    Attributes:
        text: unchanged.
        label: the name of its class, None where unknown.
    """

    text: str
    label: str | None


def clean(text: str, replace: dict[str, str]) -> str:
    """Replaces each key of `replace` by its value, then every run of white space by one space."""
    for old, new in replace.items():
        text = text.replace(old, new)
    return " ".join(text.split())


def check_columns(row: dict[str, Any], where: str, text_column: str, label_column: str | None) -> None:
    """Checks that a row has the columns.

    Args:
        row: cells by column.
        where: its place, for the error message.
        text_column: data.text_column.
        label_column: data.label_column.

    Raises:
        ValueError: when it lacks one of them.
    """
    for key, column in (("text_column", text_column), ("label_column", label_column)):
        if column is not None and column not in row:
            raise ValueError(
                f"data.{key}={column}: {where} has no such column. Give one of those it has: {', '.join(map(str, row))}"
            )


def as_text(value: object, where: str, column: str) -> str:
    """The text of a cell; null is an empty text, and a list of texts, such as captions, is one text.

    Raises:
        ValueError: for any other value that is not text.
    """
    if value is None:
        return ""
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        value = " ".join(value)
    if not isinstance(value, str):
        raise ValueError(
            f"data.text_column={column}: {where} holds {type(value).__name__} there. Give a column of text"
        )
    return value.encode("utf-8", "replace").decode()  # JSON can contain half a surrogate pair, which is invalid
