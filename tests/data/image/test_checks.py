"""A setting that no images can serve is named with its value and what to give."""

from typing import Any

import pytest

from ssl_zoo.data.image.module import ImageData
from tests.data.pictures import SETTINGS


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"heldout": 1.0}, r"data\.heldout=1\.0 must lie in \[0, 1\)"),
        ({"labels_per_class": 0}, r"data\.labels_per_class=0: give a whole number, 1 or more"),
        ({"label_fraction": 1.5}, r"data\.label_fraction=1\.5: give a number above 0, up to 1"),
        ({"labels_per_class": 3, "label_fraction": 0.1}, "give only one of the two"),
        ({"image_size": "auto"}, r"data\.image_size=auto: give a whole number"),
    ],
)
def test_a_setting_that_cannot_be(settings: dict[str, Any], said: str) -> None:
    ImageData(path=".", **SETTINGS)
    with pytest.raises(ValueError, match=said):
        ImageData(**{"path": ".", **SETTINGS, **settings})
