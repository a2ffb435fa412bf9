"""Pixels are decoded once and rightly; an unreadable image is named, or skipped, counted and capped."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ssl_zoo.data.image.sources import open_images
from ssl_zoo.data.image.splits import ImageSplit, read_splits
from ssl_zoo.data.image.stores import Damage, Unreadable, load_catalogue, load_pixels, read_images
from tests.data.pictures import picture, write

pytestmark = pytest.mark.usefixtures("own_cache")
RAISE, SKIP = Damage("raise", 0.0), Damage("skip", 0.3)


def opener(folder: Path, calls: list | None = None) -> Callable[[], dict[str, ImageSplit]]:
    def open_splits() -> dict[str, ImageSplit]:
        if calls is not None:
            calls.append(folder)
        return read_splits(open_images(str(folder), None, None, None), ["train"], "auto")

    return open_splits


def test_a_catalogue_is_made_once(tmp_path: Path) -> None:
    calls: list = []
    write(tmp_path / "set" / "train" / "cat", 2)
    write(tmp_path / "set" / "train" / "dog", 1)
    write(tmp_path / "set" / "val" / "dog", 1)
    for _ in range(2):
        found = load_catalogue(opener(tmp_path / "set", calls), {"fingerprint": "a"})
        assert found.class_names == ["cat", "dog"]
        assert {name: labels.tolist() for name, labels in found.labels.items()} == {"train": [0, 0, 1], "test": [1]}
        assert found.side == 8
    assert len(calls) == 1
    load_catalogue(opener(tmp_path / "set", calls), {"fingerprint": "b"})
    assert len(calls) == 2


@pytest.mark.parametrize(("sizes", "side"), [([(8, 8), (8, 8)], 8), ([(8, 8), (9, 9)], None), ([(8, 9)], None)])
def test_the_common_side(tmp_path: Path, sizes: list[tuple[int, int]], side: int | None) -> None:
    for i, size in enumerate(sizes):
        picture(i, *size).save(tmp_path / f"{i}.png")
    (tmp_path / "broken.png").write_bytes(b"")
    assert load_catalogue(opener(tmp_path), {}).side == side


@pytest.mark.parametrize("num_workers", [0, 2])
def test_decoded_pixels(tmp_path: Path, num_workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    count = 2100 if num_workers else 3  # workers are started for large sets only
    write(tmp_path / "set", min(count, 10))
    for i in range(10, count):
        (tmp_path / "set" / f"{i:04d}.png").hardlink_to(tmp_path / "set" / f"{i % 10:04d}.png")
    folder, unreadable = read_images(opener(tmp_path / "set"), {}, 8, 3, RAISE, num_workers)
    assert unreadable == {"train": []}
    for into_ram in (True, False):
        pixels = load_pixels(folder, "train", 8, 3, into_ram).numpy()
        assert pixels.shape == (count, 3, 8, 8)
        for i in (0, 2, count - 1):
            assert (pixels[i] == np.asarray(picture(i % 10)).transpose(2, 0, 1)).all()
    grey, _ = read_images(opener(tmp_path / "set"), {}, 16, 1, RAISE, num_workers)
    assert load_pixels(grey, "train", 16, 1, True).shape == (count, 1, 16, 16)
    assert grey != folder


@pytest.mark.parametrize("size", [8, None])
def test_unreadable_images_are_named_skipped_counted_and_capped(tmp_path: Path, size: int | None) -> None:
    paths = write(tmp_path / "set", 10, "jpg", side=64)
    for i in (2, 7):
        data = paths[i].read_bytes()
        paths[i].write_bytes(data[: len(data) // 2])
    open_splits = opener(tmp_path / "set")
    with pytest.raises(ValueError, match=r"0002.jpg: .+\. Repair or remove .* data.on_error=skip"):
        read_images(open_splits, {}, size, 3, RAISE, 0)
    for _ in range(2):  # the second time from the cache
        folder, unreadable = read_images(open_splits, {}, size, 3, SKIP, 0)
        assert [entry.position for entry in unreadable["train"]] == [2, 7]
        assert isinstance(unreadable["train"][0], Unreadable)
        assert "0002.jpg" in unreadable["train"][0].why
    if size:
        assert len(load_pixels(folder, "train", size, 3, True)) == 8
    message = r"data.max_skipped=0.1: 2 of 10 train images .* and 1 may be skipped. Raise data.max_skipped, .*0007.jpg"
    with pytest.raises(ValueError, match=message):
        read_images(open_splits, {}, size, 3, Damage("skip", 0.1), 0)
