"""Every example of a source is listed once, by a name that finds it again."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ssl_zoo.data.examples import check_present, describe, open_examples, thumbnail
from ssl_zoo.data.image.decode import UnreadableImage, open_image
from tests.data.pictures import picture, write


def test_a_flat_folder_is_listed_by_file(tmp_path: Path) -> None:
    paths = write(tmp_path / "pets", 3)
    examples = open_examples("image", tmp_path / "pets")
    found = list(examples.read())
    assert [example.path for example in found] == [path.name for path in paths]
    assert [example.load() for example in found] == paths
    assert {example.label for example in found} == {None}
    assert describe(examples) == "3 images"
    assert [example.index for example in examples.read(2)] == [2]


def test_splits_and_classes_are_those_of_the_folders(tmp_path: Path) -> None:
    for split, label, count in (("train", "cat", 2), ("train", "dog", 1), ("test", "dog", 2)):
        write(tmp_path / split / label, count)
    examples = open_examples("image", str(tmp_path))
    found = [(example.split, example.path, example.label) for example in examples.read()]
    assert found == [
        ("test", "test/dog/0000.png", "dog"),
        ("test", "test/dog/0001.png", "dog"),
        ("train", "train/cat/0000.png", "cat"),
        ("train", "train/cat/0001.png", "cat"),
        ("train", "train/dog/0000.png", "dog"),
    ]
    assert [example.key for example in examples.read(3)] == [("train", 1), ("train", 2)], "a start beyond a split"
    assert describe(examples) == "5 images in 2 splits (test, train)"


def test_a_table_of_paths_and_one_with_the_images(tmp_path: Path, data_root: Path) -> None:
    write(tmp_path / "images", 2)
    (tmp_path / "list.csv").write_text("file,label\nimages/0001.png,b\nimages/0000.png,a\n")
    examples = open_examples("image", tmp_path / "list.csv")
    assert [(example.path, example.label) for example in examples.read()] == [
        ("images/0001.png", "b"),
        ("images/0000.png", "a"),
    ]
    inside = open_examples("image", data_root / "cifar10", image_column="img")
    assert len(inside) == 400
    example = next(inside.read(300))
    assert (example.path, example.split) == (None, "test")
    assert isinstance(example.load(), bytes)
    assert inside.find([example.key])[example.key].load() == example.load()


def test_what_changes_the_content_changes_the_fingerprint(tmp_path: Path) -> None:
    write(tmp_path / "cat", 2)
    write(tmp_path / "dog", 2)
    before = open_examples("image", tmp_path).fingerprint()
    assert open_examples("image", tmp_path).fingerprint() == before
    (tmp_path / "cat").rename(tmp_path / "eel")
    assert open_examples("image", tmp_path).fingerprint() != before


def test_texts_keep_their_place_without_the_empty_ones(tmp_path: Path) -> None:
    (tmp_path / "texts.csv").write_text("text,kind\none,a\n,b\nthree,\n")
    examples = open_examples("text", tmp_path / "texts.csv", label_column="kind")
    assert [(example.index, example.load(), example.label) for example in examples.read()] == [
        (0, "one", "a"),
        (2, "three", None),
    ]
    assert len(examples) == 2
    assert [example.load() for example in examples.read(1)] == ["three"]
    assert examples.find({("train", 2)})["train", 2].load() == "three"


def test_missing_files_are_named_at_once(tmp_path: Path) -> None:
    write(tmp_path / "images", 2)
    (tmp_path / "list.csv").write_text("file\nimages/0000.png\nimages/gone.png\nimages/0001.png\n")
    examples = open_examples("image", tmp_path / "list.csv")
    with pytest.raises(ValueError, match=r"1 of 3 images are missing, such as .*gone\.png.*data\.on_error=skip"):
        check_present(examples, "raise")
    check_present(examples, "skip")
    with pytest.raises(ValueError, match=r"data\.on_error=ignore: give one of raise, skip"):
        check_present(examples, "ignore")


@pytest.mark.parametrize(("modality", "said"), [("image", "no images in"), ("text", "holds no")])
def test_an_empty_folder_is_refused(modality: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"data\.path=.*{said}"):
        open_examples(modality, tmp_path)


def test_an_empty_text_is_no_data(tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("\n\n  \n")
    with pytest.raises(ValueError, match=r"data\.path=.*empty\.txt: holds no text"):
        open_examples("text", tmp_path / "empty.txt")


def test_a_thumbnail_is_the_whole_image(tmp_path: Path) -> None:
    path = tmp_path / "wide.png"
    picture(0, 40, 20).save(path)
    small = thumbnail(path, "wide", 3, 16, 10)
    assert (small.size, small.mode) == ((10, 5), "RGB")
    exact = open_image(path, "wide", 3).transpose(1, 2, 0)
    assert np.abs(np.asarray(small).mean((0, 1)) - exact.mean((0, 1))).max() < 3
    assert thumbnail(picture(0, 4, 2), "tiny", 3, 16, 12).size == (12, 6), "enlarged"
    assert thumbnail(Image.new("L", (4, 4), 9), "grey", 1, 16, 4).getpixel((0, 0)) == (9, 9, 9)
    with pytest.raises(UnreadableImage, match="broken"):
        thumbnail(b"no image", "broken", 3, 16, 4)
