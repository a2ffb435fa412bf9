"""Sets of images besides the run's own data, read as the encoder takes them: size, channels, mean and deviation."""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ssl_zoo.data.image.module import ImageData
from ssl_zoo.data.image.sources import DIGITS
from ssl_zoo.evaluators.base import warn_once
from ssl_zoo.views import Views
from ssl_zoo.views.colour import Normalize
from ssl_zoo.views.geometry import CenterCrop


class ImageSets:
    """Finds the sets when it is made, and opens each when it is first needed.

    Attributes:
        places: the path of each set that is there.
    """

    def __init__(
        self, known: Mapping[str, str], sets: Sequence[str] | None, root: str | None, examples: int | None, key: str
    ):
        """Finds the sets.

        Args:
            known: for each set its folder below the root, or `sklearn:digits`; anything that `data=folder` reads.
            sets: those that are wanted, all of which must be there; None: every known one that is, and a message names
                the others.
            root: the folder that they lie in; None: `$SSL_ZOO_DATA`.
            examples: labelled images per split at most, a fixed stratified sample; None: all.
            key: of the evaluator, such as "evaluators.transfer_images", for messages.

        Raises:
            ValueError: for an unknown set, one that is named and not found, or none at all.
        """
        if unknown := [name for name in sets or () if name not in known]:
            raise ValueError(
                f"{key}.sets: {unknown[0]} is unknown. Give some of {', '.join(known)}, null for all, or add it by "
                f"+{key}.known.{unknown[0]}=<folder>"
            )
        if sets is not None and len(set(sets)) < max(len(sets), 1):
            raise ValueError(f"{key}.sets={list(sets)}: give one or more different sets, or null for all of them")
        if examples is not None and examples < 1:
            raise ValueError(f"{key}.examples={examples}: give at least 1, or null for all")
        base = Path(root or os.environ.get("SSL_ZOO_DATA") or ".").expanduser()
        wanted = {name: known[name] for name in sets or known}
        self.places = {
            name: path if path == DIGITS else str(base / path)
            for name, path in wanted.items()
            if path == DIGITS or (base / path).exists()
        }
        missing = [name for name in wanted if name not in self.places]
        if missing and (sets is not None or not self.places):
            raise ValueError(
                f"{key}.sets: {missing[0]} is not there: {base / wanted[missing[0]]} does not exist. Put the set "
                f"there, name others, or give {key}.root or SSL_ZOO_DATA"
            )
        if missing:
            warn_once(f"{key.rpartition('.')[2]}: not below {base}, so skipped: {', '.join(missing)}")
        self.examples = examples
        self._opened: dict[str, ImageData] = {}

    def open(self, facts: Mapping[str, Any]) -> Iterator[tuple[str, ImageData]]:
        """Each set with its name, ready for `eval_batches`.

        Args:
            facts: of the images that the encoder takes.

        Raises:
            ValueError: for a set that cannot be read.
        """
        for name, path in self.places.items():
            if name not in self._opened:
                self._opened[name] = self._read(path, facts)
            yield name, self._opened[name]

    def _read(self, path: str, facts: Mapping[str, Any]) -> ImageData:
        size, mean, std = facts["image_size"], facts["mean"], facts["std"]
        splits = {"train": ["train"], "test": "auto"}
        data = ImageData(path, splits, size, facts["in_chans"], mean, std, batch_size=1, eval_examples=self.examples)
        data.setup()
        plain = Views([[CenterCrop(size, crop_ratio=1.0), Normalize(mean, std)]])
        data.attach(plain, plain)
        return data
