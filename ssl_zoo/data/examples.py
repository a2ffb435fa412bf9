"""Every image or text of a source, in all its splits, by name: what an encoder is used on after training."""

import hashlib
import json
import os
from collections.abc import Callable, Collection, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple, Protocol

from PIL import Image

from ssl_zoo.data.image.decode import Encoded, open_image
from ssl_zoo.data.image.lists import Paths
from ssl_zoo.data.image.sources import Files, open_images
from ssl_zoo.data.image.splits import Images, ImageSource, ImageSplit
from ssl_zoo.data.layout import abbreviate
from ssl_zoo.data.locate import as_path, locate
from ssl_zoo.data.text.sources import TextSource, open_texts


class Example(NamedTuple):
    """One image or text.

    Attributes:
        split: the split that it belongs to.
        index: its position in the split; of texts, empty ones are counted too.
        path: of an image file, relative to the data; None for texts and for the rows of a table.
        label: the name of its class, None where unknown.
        load: gives the encoded image, or the text.
        source: its place, for error messages.
    """

    split: str
    index: int
    path: str | None
    label: str | None
    load: Callable[[], Encoded | str]
    source: str

    @property
    def key(self) -> tuple[str, int]:
        """What identifies it in its data set."""
        return self.split, self.index


class Examples(Protocol):
    """All examples of a data set in a fixed order, loaded as they are needed.

    Attributes:
        modality: "image" or "text".
        place: the path of the data.
        split_names: its splits.
        have_paths: whether each example is a file of its own.
    """

    modality: str
    place: str
    split_names: list[str]
    have_paths: bool

    def __len__(self) -> int:
        """Number of examples."""

    def fingerprint(self) -> str:
        """Changes with the content of the data, and with how it is read."""

    def read(self, start: int = 0) -> Iterator[Example]:
        """The examples in order, without the first `start` ones."""

    def find(self, keys: Collection[tuple[str, int]]) -> dict[tuple[str, int], Example]:
        """The examples with these keys."""


def open_examples(
    modality: str,
    path: str | Path,
    root: str | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    caption_column: str | None = None,
    name: str | None = None,
    text_column: str = "text",
    documents: str | None = None,
) -> Examples:
    """Lists the images or texts of a data set: a file, a folder of any layout, a table or a Hub id.

    Args:
        modality: "image" or "text".
        path: see `open_images` and `open_texts`, as all other arguments.
        root: a folder that is searched first.
        image_column: of a table of images.
        label_column: of a table.
        caption_column: of a table of images, which is not read.
        name: the configuration of a Hub data set that has several.
        text_column: of a table of texts.
        documents: how plain text is divided.

    Raises:
        ValueError: when there is no such data, or it holds no images or no text.
    """
    path = as_path(str(path) if isinstance(path, Path) else path)
    if modality == "text":
        texts = TextExamples(open_texts(path, root, name, text_column, label_column, documents), path)
        if not len(texts):
            raise ValueError(f"data.path={path}: holds no text. Give a file or a folder with text")
        return texts
    columns = [] if caption_column is None else [caption_column]
    place = locate(path, root) if ":" not in path else path
    return ImageExamples(open_images(path, root, image_column, label_column, columns), path, place)


class ImageExamples:
    """The images of a source.

    Args:
        source: the data.
        path: as the user gave it.
        place: its file or folder; a Hub id or another name that is none.
    """

    modality = "image"

    def __init__(self, source: ImageSource, path: str, place: Path | str):
        self.place = path
        self.source = source
        self.split_names = list(source.splits())
        self.splits: dict[str, ImageSplit] = {name: source.read(name) for name in self.split_names}
        self.have_paths = all(isinstance(split.images, Files | Paths) for split in self.splits.values())
        self._folder = place if isinstance(place, Path) and place.is_dir() else Path(place).parent
        if not len(self):
            raise ValueError(f"data.path={path}: holds no images. Give a folder or a table of images")

    def __len__(self) -> int:
        return sum(len(split.images) for split in self.splits.values())

    def fingerprint(self) -> str:
        """A hash of the files, and of the labels that belong to them."""
        digest = hashlib.sha256(self.source.fingerprint().encode())
        for name, split in self.splits.items():
            digest.update(json.dumps([name, split.classes, split.labels.tolist()]).encode())
        return digest.hexdigest()

    def read(self, start: int = 0) -> Iterator[Example]:
        """The images in order, without the first `start` ones; none is opened."""
        for name, split in self.splits.items():
            yield from (self._example(name, index) for index in range(start, len(split.images)))
            start = max(0, start - len(split.images))

    def find(self, keys: Collection[tuple[str, int]]) -> dict[tuple[str, int], Example]:
        """The images with these keys."""
        return {key: self._example(*key) for key in keys}

    def missing(self) -> list[str]:
        """Paths at which there is no file, of a folder or a table of paths."""
        if not self.have_paths:
            return []
        paths = (images[index] for images in self._images() for index in range(len(images)))
        return [str(path) for path in paths if isinstance(path, Path) and not path.is_file()]

    def _images(self) -> Iterator[Images]:
        return (split.images for split in self.splits.values())

    def _example(self, split: str, index: int) -> Example:
        images, labels, classes = self.splits[split]
        label = classes[labels[index]] if labels[index] >= 0 else None
        path = None
        if self.have_paths:
            relative = os.path.relpath(os.fspath(images[index]), self._folder)  # type: ignore[arg-type]
            path = str(images[index]) if relative.startswith("..") else relative
        return Example(split, index, path, label, partial(images.__getitem__, index), images.name(index))


class TextExamples:
    """The texts of a source, without empty ones.

    Args:
        source: the data, which is read anew for each pass.
        path: as the user gave it.
    """

    modality = "text"
    have_paths = False

    def __init__(self, source: TextSource, path: str):
        self.place = path
        self.source = source
        self.split_names = list(source.splits())
        self._count = sum(1 for _ in self.read())

    def __len__(self) -> int:
        return self._count

    def fingerprint(self) -> str:
        """A hash of the files and of how they are read."""
        return hashlib.sha256(json.dumps(self.source.key(), sort_keys=True).encode()).hexdigest()

    def read(self, start: int = 0) -> Iterator[Example]:
        """The texts in order, without the first `start` ones."""
        return islice(self._all(), start, None)

    def _all(self) -> Iterator[Example]:
        for split in self.split_names:
            for index, (text, label) in enumerate(self.source.read(split, labelled=True)):
                if text.strip():
                    yield Example(split, index, None, label, partial(str, text), f"{split}, text {index}")

    def find(self, keys: Collection[tuple[str, int]]) -> dict[tuple[str, int], Example]:
        """The texts with these keys, in one pass."""
        wanted = set(keys)
        return {example.key: example for example in self._all() if example.key in wanted}


def check_present(examples: Examples, on_error: str) -> None:
    """Raises ValueError for a table or folder that names files which are not there, unless such are to be skipped."""
    if on_error not in ("raise", "skip"):
        raise ValueError(f"data.on_error={on_error}: give one of raise, skip")
    if on_error == "raise" and isinstance(examples, ImageExamples) and (missing := examples.missing()):
        raise ValueError(
            f"data.path={examples.place}: {len(missing):,} of {len(examples):,} images are missing, such as "
            f"{abbreviate(missing)}. Put them back, or give data.on_error=skip"
        )


def thumbnail(encoded: Encoded, name: str, in_chans: int, bits: int, side: int) -> Image.Image:
    """A small copy of an image, whole and in its own proportions.

    Args:
        encoded: the image.
        name: for error messages.
        in_chans: channels that the encoder takes; of neither one nor three the first is shown, in grey.
        bits: see `open_image`.
        side: of the square that it fits into, in pixels.

    Returns:
        An image of mode RGB.

    Raises:
        UnreadableImage: see `open_image`.
    """
    pixels = open_image(encoded, name, in_chans, bits)
    shown = pixels.transpose(1, 2, 0) if in_chans == 3 else pixels[0]
    image = Image.fromarray(shown).convert("RGB")
    image.thumbnail((side, side), Image.Resampling.BILINEAR)
    if max(image.size) < side:  # an image of few pixels
        scale = side / max(image.size)
        width, height = (max(1, round(length * scale)) for length in image.size)
        image = image.resize((width, height), Image.Resampling.NEAREST)
    return image


def describe(examples: Examples) -> str:
    """Says what there is, such as "57 images in 2 splits"."""
    count = f"{len(examples):,} {examples.modality}{'s' * (len(examples) != 1)}"
    splits = examples.split_names
    return count if len(splits) == 1 else f"{count} in {len(splits)} splits ({abbreviate(splits)})"
