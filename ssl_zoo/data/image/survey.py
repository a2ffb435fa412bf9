"""What a folder or table of images holds, found in bounded time and before anything is built; and the picks for it."""

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xxhash

from ssl_zoo.data.image.decode import ImageHeader, UnreadableImage, open_image, read_image_header, resize_and_crop
from ssl_zoo.data.image.sources import open_images
from ssl_zoo.data.image.splits import Images, ImageSplit, choose_splits, read_splits
from ssl_zoo.data.labels import describe_labels, limit_labels
from ssl_zoo.data.locate import as_path
from ssl_zoo.data.picks import Findings, Pick, is_open, pick_batch_size, pick_image_size

HEADERS = 10_000
"""Maximum number of images whose headers are read."""
COMPARED = 20_000
"""Maximum number of images that are compared with each other."""
DECODED = 256
"""Maximum number of images that are decoded, for mean and standard deviation."""
DECODED_PIXELS = 10**9
"""Fewer are decoded if they had more pixels than this together: some ten seconds."""
TAIL = 4096
"""Bytes at the end of a file that are compared before the whole."""
MIN_STD = 0.01
"""Lower bound of a picked standard deviation: images may be of one colour."""


class Headers(NamedTuple):
    """The headers of some images.

    Attributes:
        found: of those that can be read, by name.
        unreadable: messages that name each of the others.
        total: number of images, read or not.
    """

    found: dict[str, ImageHeader]
    unreadable: list[str]
    total: int

    @property
    def looked(self) -> str:
        """How many were read, for a message, "" for all."""
        count = len(self.found) + len(self.unreadable)
        return "" if count == self.total else f" ({count:,} of {self.total:,} looked at)"


class Duplicates(NamedTuple):
    """Images with the same bytes as another one.

    Attributes:
        extra: number of images that an earlier one equals.
        leaked: number of test images that a training image equals.
        example: the names of two equal images.
        looked: number of images compared.
    """

    extra: int
    leaked: int
    example: tuple[str, str] | None
    looked: int


class Statistics(NamedTuple):
    """Mean and standard deviation of pixels in [0, 1].

    Attributes:
        mean: of each channel.
        std: of each channel.
        decoded: number of images.
        unreadable: messages about those that cannot be decoded.
    """

    mean: list[float]
    std: list[float]
    decoded: int
    unreadable: list[str]


def spread_evenly(total: int, limit: int) -> list[int]:
    """At most `limit` positions among `total`, evenly spaced, the same at every call."""
    return [int(position) for position in np.unique(np.linspace(0, total - 1, min(total, limit)).round())]


def read_headers(splits: Mapping[str, ImageSplit], limit: int = HEADERS) -> Headers:
    """Reads the headers of up to `limit` images, evenly spaced over the splits."""
    total = sum(len(split.images) for split in splits.values())
    found, unreadable = {}, []
    for split in splits.values():
        for position in spread_evenly(len(split.images), max(1, limit * len(split.images) // total)):
            name = split.images.name(position)
            try:
                found[name] = read_image_header(split.images[position], name)
            except UnreadableImage as error:
                unreadable.append(str(error))
    return Headers(found, unreadable, total)


def find_duplicates(splits: Mapping[str, ImageSplit], limit: int = COMPARED) -> Duplicates:
    """Compares up to `limit` images, evenly spaced over the splits, by their bytes.

    Of files, size and end are compared first, and the whole only where these are equal.
    """
    total = sum(len(split.images) for split in splits.values())
    groups: dict[tuple, list[tuple[str, Images, int]]] = {}
    for name, split in splits.items():
        for position in spread_evenly(len(split.images), max(1, limit * len(split.images) // total)):
            groups.setdefault(_brief_hash(split.images, position), []).append((name, split.images, position))
    extra = leaked = 0
    example = None
    for group in _confirmed(groups):
        extra += len(group) - 1
        in_test = sum(name == "test" for name, _, _ in group)
        leaked += in_test if in_test < len(group) else 0
        if example is None or (0 < in_test < len(group) and leaked == in_test):  # the first across splits, if any
            group = sorted(group, key=lambda each: each[0] == "test")
            example = (group[0][1].name(group[0][2]), group[-1][1].name(group[-1][2]))
    return Duplicates(extra, leaked, example, min(total, limit))


def _brief_hash(images: Images, position: int) -> tuple:
    """What equal images have in common, and most different ones not."""
    encoded = images[position]
    if not isinstance(encoded, Path):
        return (xxhash.xxh3_128_digest(encoded if isinstance(encoded, bytes) else encoded.tobytes()),)
    try:
        size = encoded.stat().st_size if encoded.is_file() else -1
        if size <= 0:  # not readable, or empty: reported as such
            return (str(encoded),)
        with open(encoded, "rb") as file:
            file.seek(max(0, size - TAIL))
            return (size, xxhash.xxh3_128_digest(file.read()))
    except OSError:
        return (str(encoded),)


def _confirmed(groups: Mapping[tuple, list[tuple[str, Images, int]]]) -> Iterator[list[tuple[str, Images, int]]]:
    """The groups of two or more whose members are equal in all bytes."""
    for group in groups.values():
        if len(group) < 2:
            continue
        equal: dict[bytes, list[tuple[str, Images, int]]] = {}
        for member in group:
            encoded = member[1][member[2]]
            content = encoded.read_bytes() if isinstance(encoded, Path) else b""
            equal.setdefault(xxhash.xxh3_128_digest(content), []).append(member)
        yield from (members for members in equal.values() if len(members) > 1)


def measure_pixels(images: Images, headers: Headers, size: int, in_chans: int, bits: int = 16) -> Statistics:
    """Decodes a sample of the images at `size` pixels.

    Args:
        images: those of the training split.
        headers: their sizes, which limit the sample.
        size: side in pixels.
        in_chans: channels.
        bits: see `open_image`.
    """
    area = float(np.median([header.width * header.height for header in headers.found.values()]))
    limit = max(16, min(DECODED, int(DECODED_PIXELS / max(area, 1))))
    sums, squares, count, unreadable = np.zeros(in_chans), np.zeros(in_chans), 0, []
    for position in spread_evenly(len(images), limit):
        try:
            image = open_image(images[position], images.name(position), in_chans, bits)
        except UnreadableImage as error:
            unreadable.append(str(error))
            continue
        pixels = resize_and_crop(image, size).astype(np.float64) / 255
        sums += pixels.mean((1, 2))
        squares += (pixels**2).mean((1, 2))
        count += 1
    mean = sums / max(count, 1)
    std = np.sqrt(np.maximum(squares / max(count, 1) - mean**2, MIN_STD**2))
    return Statistics([round(float(x), 4) for x in mean], [round(float(x), 4) for x in std], count, unreadable)


def survey_images(settings: Mapping[str, Any], on_gpu: bool, uses_labels: bool = False) -> Findings:
    """Surveys the images that `settings` name, and picks what is "auto" in them.

    Args:
        settings: the keys of conf/data/folder.yaml.
        on_gpu: whether there is a GPU.
        uses_labels: whether the method trains on labelled examples only.

    Raises:
        ValueError: for data that is missing or ambiguous, images none of which can be read, a single image, or numbers
            of bands that cannot be one.
    """
    path = as_path(settings["path"])
    columns = settings.get("image_column"), settings.get("label_column")
    captions = filter(None, [settings.get("caption_column")])
    source = open_images(path, settings.get("root"), *columns, other_columns=tuple(captions))
    train, test = settings["splits"]["train"], settings["splits"]["test"]
    train = [train] if isinstance(train, str) else list(train)
    splits = read_splits(source, train, test, settings.get("heldout"))
    named_test = choose_splits(source.splits(), train, test)[1]

    # ---- What is there ----
    headers = read_headers(splits)
    if not headers.found:
        raise ValueError(
            f"data.path={path}: none of the {len(headers.unreadable):,} images looked at can be read, such as "
            f"{headers.unreadable[0]}. Give a folder of images"
        )
    labels = limit_labels(splits["train"].labels, settings.get("labels_per_class"), settings.get("label_fraction"), 0)
    num_train = int((labels >= 0).sum()) if uses_labels and (labels >= 0).any() else len(labels)
    if num_train < 2:
        raise ValueError(f"data.path={path}: a single image to train on. Give a folder with more of them")
    duplicates = find_duplicates(splits)

    # ---- Picks, of which mean and standard deviation depend on the others ----
    picks = _pick_shape(path, settings, headers, num_train, on_gpu)
    shape = {pick.key.removeprefix("data."): pick.value for pick in picks}
    size, in_chans = (shape.get(key, settings[key]) for key in ("image_size", "in_chans"))
    pixels = measure_pixels(splits["train"].images, headers, size, in_chans, settings.get("bits") or 16)
    for key, values in (("mean", pixels.mean), ("std", pixels.std)):
        if is_open(settings, key):
            picks.append(Pick(f"data.{key}", values, f"{pixels.decoded:,} training images at {size}x{size}"))
    if is_open(settings, "batch_size"):
        picks.append(pick_batch_size(num_train))

    # ---- The report ----
    unreadable = list(dict.fromkeys([*headers.unreadable, *pixels.unreadable]))
    lines = [
        ("data", path),
        ("images", _count_images(splits, named_test)),
        ("files", ", ".join(f"{kind} {n:,}" for kind, n in _kinds(headers).most_common()) + headers.looked),
        ("sizes", _describe_sizes(headers)),
        ("channels", _describe_bands(headers)),
        ("classes", _describe_classes(splits, named_test, labels)),
        ("duplicates", _describe_duplicates(duplicates, headers.total)),
        ("unreadable", f"{len(unreadable)}, such as {unreadable[0]}" if unreadable else "none"),
    ]
    problems = []
    if unreadable and settings.get("on_error", "raise") == "raise":
        problems.append(
            f"data.on_error=raise: {len(unreadable)} images cannot be read, such as {unreadable[0]}. "
            "Repair or remove them, or give data.on_error=skip"
        )
    return Findings(lines, picks, problems, num_train)


def _pick_shape(path: str, settings: Mapping[str, Any], headers: Headers, count: int, on_gpu: bool) -> list[Pick]:
    """Picks data.image_size and data.in_chans, where they are open."""
    picks = []
    if is_open(settings, "image_size"):
        median = int(np.median([min(header.width, header.height) for header in headers.found.values()]))
        picks.append(pick_image_size(median, count, on_gpu))
    if is_open(settings, "in_chans"):
        given = next((settings[key] for key in ("mean", "std") if not is_open(settings, key)), None)
        bands = sorted({header.bands for header in headers.found.values()})
        if given is not None:
            picks.append(Pick("data.in_chans", len(given), "as many as the given mean and std"))
        elif len(bands) > 1 and bands != [1, 3]:
            raise ValueError(
                f"data.in_chans=auto: {path} mixes images of {_describe_bands(headers)}, which no number of channels "
                "fits. Keep one kind, or convert the others"
            )
        else:
            why = {1: "all images are grey", 3: "colour"}.get(bands[-1], f"all images have {bands[-1]} bands")
            picks.append(Pick("data.in_chans", bands[-1], why))
    return picks


def _count_images(splits: Mapping[str, ImageSplit], named_test: str | None) -> str:
    train = f"{len(splits['train'].images):,} to train"
    if "test" not in splits:
        return f"{train}, none to test"
    where = f"split {named_test}" if named_test else "a fixed share of each class, held out; data.heldout=0: none"
    return f"{train}, {len(splits['test'].images):,} to test ({where})"


def _kinds(headers: Headers) -> Counter[str]:
    return Counter(header.kind for header in headers.found.values())


def _describe_sizes(headers: Headers) -> str:
    sizes = np.array([(header.width, header.height) for header in headers.found.values()])
    if (sizes == sizes[0]).all():
        return f"{sizes[0][0]}x{sizes[0][1]}"
    sides = ((name, np.sort(sides)) for name, sides in (("shorter", sizes.min(1)), ("longer", sizes.max(1))))
    described = [f"{name} side {its[0]:,}, {int(np.median(its)):,}, {its[-1]:,}" for name, its in sides]
    return f"{' and '.join(described)} pixels (minimum, median, maximum)"


def _describe_bands(headers: Headers) -> str:
    """Counts the images by bands, with an example of each where there are several."""
    counts = Counter(header.bands for header in headers.found.values())
    first = {header.bands: name for name, header in reversed(headers.found.items())}
    names = {1: "grey", 3: "colour"}
    return ", ".join(
        f"{names.get(bands, f'{bands} bands')} {n:,}" + (f" (such as {first[bands]})" if bands not in names else "")
        for bands, n in counts.most_common()
    )


def _describe_classes(splits: Mapping[str, ImageSplit], named_test: str | None, labels: np.ndarray) -> str:
    """The classes of the training split, the smallest, and what follows for the evaluation."""
    names = splits["train"].classes
    counts = np.bincount(labels[labels >= 0], minlength=len(names))
    if not counts.any():
        return "no labels: what needs them is skipped; rank and spread of the features remain"
    described = describe_labels(labels, names)
    if len(names) > 1:
        described += f"; smallest {names[int(counts.argmin())]}, {counts.min():,}"
    if single := [name for name, count in zip(names, counts, strict=True) if count == 1]:
        described += (
            f"; one image only, so too few to {'learn' if named_test else 'hold out'} any: "
            f"{', '.join(single[:5])}{' ...' * (len(single) > 5)}. Add images or remove the class"
        )
    return described


def _describe_duplicates(found: Duplicates, total: int) -> str:
    looked = "" if found.looked == total else f" (among {found.looked:,} of {total:,} images)"
    if found.example is None:
        return f"none{looked}"
    described = f"{found.extra:,} exact{looked}, such as {found.example[0]} = {found.example[1]}"
    if found.leaked:
        described += (
            f". Warning: {found.leaked:,} test images are training images too, so accuracies are too good. Remove them"
        )
    return described
