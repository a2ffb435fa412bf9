"""Checks of the settings of the data module for text."""

from typing import TYPE_CHECKING

from ssl_zoo.data.labels import check_held_out, check_label_limits

if TYPE_CHECKING:
    from ssl_zoo.data.text.module import TextData

TRAIN_ROWS = ("packed", "documents", "labelled")


def check_text_settings(data: "TextData") -> None:
    """Raises ValueError for a setting of `data` that no text can serve."""
    for key in ("batch_size", "row_length", "max_length", "eval_rows"):
        size = getattr(data, key)
        if not isinstance(size, int) or size < 1:
            raise ValueError(f"data.{key}={size}: give a whole number of at least 1")
    if data.train_rows not in (None, *TRAIN_ROWS):
        raise ValueError(f"data.train_rows={data.train_rows}: give one of {', '.join(TRAIN_ROWS)}")
    check_held_out(data.heldout)
    check_label_limits(data.labels_per_class, data.label_fraction)
