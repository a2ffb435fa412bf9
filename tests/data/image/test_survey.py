"""What is found in folders of images, and what is picked for them."""

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ssl_zoo.data.image import survey as module
from ssl_zoo.data.image.sources import open_images
from ssl_zoo.data.image.splits import read_splits
from ssl_zoo.data.image.survey import find_duplicates, read_headers, spread_evenly, survey_images
from ssl_zoo.data.picks import Findings
from tests.data.pictures import picture, tiff, write

REAL = Path(os.environ.get("SSL_ZOO_DATA") or "/nowhere")
OPEN: dict[str, Any] = dict.fromkeys(("image_size", "in_chans", "mean", "std", "batch_size"), "auto")
OPEN |= {"splits": {"train": ["train"], "test": "auto"}}


def surveyed(path: Path, on_gpu: bool = False, **settings: Any) -> tuple[Findings, dict[str, str], dict[str, Any]]:
    found = survey_images({**OPEN, "path": str(path), **settings}, on_gpu)
    return found, dict(found.lines), {pick.key: pick.value for pick in found.picks}


def test_formats_sizes_and_channels(tmp_path: Path) -> None:
    picture(0, 40, 20).save(tmp_path / "a.jpg")
    picture(1, 60, 50).save(tmp_path / "b.png")
    picture(2, 90, 80).convert("L").save(tmp_path / "c.png")
    turned = Image.Exif()
    turned[0x0112] = 6
    picture(3, 30, 70).save(tmp_path / "d.jpg", exif=turned)
    picture(4, 36, 36).convert("P").save(tmp_path / "e.gif")
    found, lines, picks = surveyed(tmp_path)
    assert lines["images"] == "5 to train, none to test"
    assert lines["files"] == "JPEG 2, PNG 2, GIF 1"
    assert "shorter side 20, 36, 80 and longer side 36, 60, 90 pixels" in lines["sizes"]
    assert lines["channels"] == "colour 4, grey 1"
    assert lines["classes"].startswith("no labels")
    assert (lines["duplicates"], lines["unreadable"]) == ("none", "none")
    assert picks["data.image_size"] == 32
    assert picks["data.in_chans"] == 3
    assert picks["data.batch_size"] == 4
    assert not found.problems
    assert found.num_train == 5


def test_mean_and_std_are_those_of_the_pixels(tmp_path: Path) -> None:
    write(tmp_path, 20)
    pixels = np.stack([np.asarray(Image.open(path)) for path in sorted(tmp_path.iterdir())]) / 255
    _, _, picks = surveyed(tmp_path)
    assert picks["data.mean"] == pytest.approx(pixels.mean((0, 1, 2)), abs=1e-4)
    assert picks["data.std"] == pytest.approx(pixels.std((0, 1, 2)), abs=1e-4)


def test_grey_images_and_bands_are_what_they_are(tmp_path: Path) -> None:
    for k in range(4):
        (tmp_path / "grey").mkdir(exist_ok=True)
        picture(k).convert("L").save(tmp_path / "grey" / f"{k}.png")
        (tmp_path / "bands").mkdir(exist_ok=True)
        pixels = np.random.default_rng(k).integers(0, 256, (8, 8, 5), dtype=np.uint8)
        (tmp_path / "bands" / f"{k}.tif").write_bytes(tiff(pixels))
    assert surveyed(tmp_path / "grey")[2]["data.in_chans"] == 1
    _, lines, picks = surveyed(tmp_path / "bands")
    assert picks["data.in_chans"] == len(picks["data.mean"]) == 5
    assert "5 bands 4 (such as" in lines["channels"]
    shutil.copy(tmp_path / "bands" / "0.tif", tmp_path / "grey" / "other.tif")
    with pytest.raises(ValueError, match=r"data\.in_chans=auto: .* mixes images of grey 4, 5 bands 1 .*Keep one kind"):
        surveyed(tmp_path / "grey")


def test_what_is_given_is_not_picked(tmp_path: Path) -> None:
    write(tmp_path, 4)
    given = {"image_size": 6, "mean": [0.5], "std": [0.25], "batch_size": 3}
    assert surveyed(tmp_path, **given)[2] == {"data.in_chans": 1}


def test_equal_files_are_counted_also_across_splits(tmp_path: Path) -> None:
    for split, first in (("train", 0), ("test", 100)):
        for k, name in enumerate(("cat", "dog")):
            write(tmp_path / split / name, 5, first=first + 10 * k)
    assert surveyed(tmp_path)[1]["duplicates"] == "none"
    shutil.copy(tmp_path / "train/cat/0000.png", tmp_path / "train/cat/copy.png")
    assert surveyed(tmp_path)[1]["duplicates"].startswith("1 exact, such as")
    shutil.copy(tmp_path / "train/dog/0011.png", tmp_path / "test/dog/copy.png")
    line = surveyed(tmp_path)[1]["duplicates"]
    assert line.startswith("2 exact, such as")
    assert f"{tmp_path}/train/dog/0011.png = {tmp_path}/test/dog/copy.png" in line
    assert "Warning: 1 test images are training images too" in line


def test_files_with_one_end_may_differ_before(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for name in "ab":
        pixels = random.integers(0, 256, (64, 64, 3), dtype=np.uint8)
        pixels[8:] = 0
        Image.fromarray(pixels).save(tmp_path / f"{name}.bmp")
    splits = read_splits(open_images(str(tmp_path), None, None, None), ["train"], None)
    assert find_duplicates(splits).extra == 0


def test_without_a_test_split_a_share_of_each_class_is_held_out(tmp_path: Path) -> None:
    for k, name in enumerate(("cat", "dog")):
        write(tmp_path / name, 10, first=20 * k)
    write(tmp_path / "unicorn", 1, first=90)
    found, lines, _ = surveyed(tmp_path)
    assert lines["images"].startswith("17 to train, 4 to test (a fixed share of each class, held out; data.heldout=0")
    assert "3 classes (cat 8, dog 8, unicorn 1)" in lines["classes"]
    assert "one image only, so too few to hold out any: unicorn. Add images" in lines["classes"]
    assert found.num_train == 17
    assert surveyed(tmp_path, heldout=0)[1]["images"] == "21 to train, none to test"


def test_few_labels_are_what_a_supervised_method_trains_on(tmp_path: Path) -> None:
    for k, name in enumerate(("cat", "dog")):
        write(tmp_path / name, 40, first=50 * k)
    settings = {**OPEN, "path": str(tmp_path), "labels_per_class": 3}
    assert survey_images(settings, False, uses_labels=True).num_train == 6
    assert survey_images(settings, False).num_train == 64


def test_damaged_files_are_named(tmp_path: Path) -> None:
    paths = write(tmp_path, 6)
    paths[2].write_bytes(b"no image")
    paths[4].write_bytes(paths[4].read_bytes()[:60])
    found, lines, _ = surveyed(tmp_path)
    assert lines["unreadable"].startswith(f"2, such as {paths[2]}")
    assert found.problems[0].startswith("data.on_error=raise: 2 images cannot be read")
    assert not surveyed(tmp_path, on_error="skip")[0].problems


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda folder: None, "no images in .*It holds no files.*For text give data=text_folder"),
        (lambda folder: (folder / "a.txt").write_text("text"), r"It holds 1 \.txt .*For text give data=text_folder"),
        (lambda folder: [(folder / f"{k}.jpg").write_text("x") for k in range(3)], "none of the 3 images looked at"),
        (lambda folder: write(folder, 1), "a single image to train on"),
        (lambda folder: [write(folder / name, 1) for name in "abc"], "data.heldout=0.2: each of the 3 labelled images"),
    ],
)
def test_nothing_to_learn_from(make: Any, said: str, tmp_path: Path) -> None:
    make(tmp_path)
    with pytest.raises(ValueError, match=said):
        surveyed(tmp_path)


def test_a_path_that_does_not_exist() -> None:
    with pytest.raises(ValueError, match=r"data\.path=nowhere: no such file or folder"):
        surveyed(Path("nowhere"))


def test_much_is_sampled_and_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, 60)
    monkeypatch.setattr(module, "DECODED", 20)
    splits = read_splits(open_images(str(tmp_path), None, None, None), ["train"], None)
    headers = read_headers(splits, limit=10)
    assert len(headers.found) == 10
    assert headers.looked == " (10 of 60 looked at)"
    assert find_duplicates(splits, limit=30).looked == 30
    assert [pick.why for pick in surveyed(tmp_path)[0].picks if pick.key == "data.mean"] == [
        "20 training images at 8x8"
    ]
    assert spread_evenly(100, 3) == [0, 50, 99]
    assert spread_evenly(2, 10) == [0, 1]


@pytest.mark.skipif(not (REAL / "photos").is_dir(), reason="no photos below SSL_ZOO_DATA")
def test_photographs() -> None:
    _, lines, picks = surveyed(REAL / "photos")
    assert lines["images"] == "200 to train, none to test"
    assert lines["channels"] == "colour 193, grey 7"
    assert (picks["data.image_size"], picks["data.in_chans"], picks["data.batch_size"]) == (128, 3, 16)
    assert surveyed(REAL / "photos", on_gpu=True)[2]["data.image_size"] == 224
