"""Checks of the settings of the data module for images, alone and beside what the data turned out to be."""

from typing import TYPE_CHECKING

from ssl_zoo.data.image.stores import STORES, Catalogue
from ssl_zoo.data.labels import check_held_out, check_label_limits
from ssl_zoo.data.layout import abbreviate

if TYPE_CHECKING:
    from ssl_zoo.data.image.module import ImageData

BRIGHT = 2**14
"""16-bit images with all values below this use fewer bits and would be nearly black."""


def check_image_settings(data: "ImageData") -> None:
    """Raises ValueError for a setting of `data` that no data can serve."""
    if not all(isinstance(name, str) for name in data.splits["train"]):
        raise ValueError(f"data.splits.train={data.splits['train']}: give the name of a split, or a list of names")
    for key, value, allowed in (
        ("store", data.store, STORES),
        ("on_error", data.damage.on_error, ("raise", "skip")),
        ("bits", data.bits, (None, *range(9, 17))),
    ):
        if value not in allowed:
            raise ValueError(f"data.{key}={value}: give one of {', '.join(map(str, allowed))}")
    counts = {"image_size": 1, "in_chans": 1, "num_workers": 0, "eval_examples": 1}
    for key, minimum in counts.items():
        number = getattr(data, key)
        if number is None and key not in ("image_size", "in_chans"):
            continue
        if type(number) is not int:
            raise ValueError(f"data.{key}={number}: give a whole number, {minimum} or more")
        if number < minimum:
            raise ValueError(f"data.{key}={number}: give {minimum} or more")
    for key, values in (("mean", data.mean), ("std", data.std)):
        numbers = all(isinstance(value, int | float) for value in values)
        if not numbers or len(values) != data.in_chans or (key == "std" and min(values) <= 0):
            raise ValueError(f"data.{key}={values}: give data.in_chans={data.in_chans} numbers, std above 0")
    if not 0 <= data.damage.max_skipped < 1:
        raise ValueError(f"data.max_skipped={data.damage.max_skipped}: give a fraction from 0 to less than 1")
    check_held_out(data.heldout)
    check_label_limits(data.labels_per_class, data.label_fraction)


def check_catalogue(data: "ImageData", found: Catalogue) -> None:
    """Raises ValueError where the number of classes is not the given one, or 16-bit images would be nearly black."""
    names = found.class_names
    if data.num_classes is not None and data.num_classes != len(names):
        raise ValueError(
            f"data.num_classes={data.num_classes}: {data.path} has {len(names)} "
            f"({abbreviate(names) or 'no labels'}). Give data.num_classes=null to take it as it is, "
            "or another data.label_column"
        )
    if data.bits is None and found.brightest is not None and found.brightest < BRIGHT:
        fitting = max(9, found.brightest.bit_length())
        raise ValueError(
            f"data.bits=null: the images of {data.path} have 16 bits, and their values go to "
            f"{found.brightest:,} only, so they would be nearly black. Give data.bits={fitting}, which makes "
            f"{2**fitting - 1:,} white, or data.bits=16 to keep them as they are"
        )
