"""A setting that no text can serve is named with its value and what to give."""

from typing import Any

import pytest

from ssl_zoo.data.text.module import TextData

SETTINGS: dict[str, Any] = {"path": "python:stdlib", "batch_size": 2, "seed": 0, "tokenizer": {}}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"batch_size": "auto"}, r"data\.batch_size=auto: give a whole number"),
        ({"train_rows": "some"}, r"data\.train_rows=some: give one of packed"),
        ({"heldout": -0.1}, r"data\.heldout=-0\.1 must lie in"),
        ({"labels_per_class": True}, r"data\.labels_per_class=True: give a whole number"),
    ],
)
def test_a_setting_that_cannot_be(settings: dict[str, Any], said: str) -> None:
    TextData(**SETTINGS)
    with pytest.raises(ValueError, match=said):
        TextData(**SETTINGS | settings)
