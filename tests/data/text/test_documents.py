"""Cleaning, columns, texts."""

import pytest

from ssl_zoo.data.text.documents import as_text, check_columns, clean


def test_clean_replaces_and_joins_white_space() -> None:
    assert clean("  A<br /><br />B\n\tc\u00a0d ", {"<br />": " "}) == "A B c d"
    assert clean(" \n\t", {}) == ""


def test_texts() -> None:
    assert as_text(None, "here", "text") == ""
    assert as_text(["A dog .", "It runs ."], "here", "text") == "A dog . It runs ."
    assert as_text("a\ud800b", "here", "text") == "a?b"
    with pytest.raises(ValueError, match=r"data\.text_column=label: here holds int there"):
        as_text(3, "here", "label")


def test_a_missing_column_names_those_there_are() -> None:
    row = {"sentence": "x", "idx": 1}
    check_columns(row, "here", "sentence", None)
    with pytest.raises(ValueError, match=r"data\.text_column=text: here has no such column.*: sentence, idx"):
        check_columns(row, "here", "text", None)
    with pytest.raises(ValueError, match=r"data\.label_column=label: here"):
        check_columns(row, "here", "sentence", "label")
