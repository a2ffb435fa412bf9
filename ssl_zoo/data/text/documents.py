"""A document, and what every way of reading documents shares."""

from typing import Any, NamedTuple


class Document(NamedTuple):
    """text: as the source has it; label: the name of its class, None where unknown."""

    text: str
    label: str | None


def clean(text: str, replace: dict[str, str]) -> str:
    """`text` with each key of `replace` replaced by its value, then every run of white space made one space."""
    for old, new in replace.items():
        text = text.replace(old, new)
    return " ".join(text.split())


def check_columns(row: dict[str, Any], where: str, text_column: str, label_column: str | None) -> None:
    """Raises: ValueError when `row`, found at `where`, lacks one of the columns."""
    for key, column in (("text_column", text_column), ("label_column", label_column)):
        if column is not None and column not in row:
            raise ValueError(
                f"data.{key}={column}: {where} has no such column. Give one of those it has: {', '.join(map(str, row))}"
            )


def as_text(value: object, where: str, column: str) -> str:
    """Null is an empty text. Raises: ValueError for anything else that is no text."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ValueError(
            f"data.text_column={column}: {where} holds {type(value).__name__} there. Give a column of text"
        )
    return value.encode("utf-8", "replace").decode()  # JSON can spell half a surrogate pair, which is no character
