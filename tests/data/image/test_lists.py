"""Tables of paths and labels: found beside their images, relative to their own folder, columns told or asked for."""

from pathlib import Path

import pytest

from ssl_zoo.data.image.decode import UnreadableImage, open_image
from ssl_zoo.data.image.lists import Listed
from ssl_zoo.data.image.sources import Folder, open_images
from ssl_zoo.data.image.splits import ImageSource
from tests.data.pictures import write


def source(path: Path, image_column: str | None = None, label_column: str | None = None) -> ImageSource:
    return open_images(str(path), None, image_column, label_column)


@pytest.fixture
def kaggle(tmp_path: Path) -> Path:
    """Four images in one folder; tables are for the tests to write."""
    write(tmp_path / "kaggle" / "images", 4)
    return tmp_path / "kaggle"


def save(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n")
    return path


def rows(part: object) -> list[tuple[str, int]]:
    images, labels, _ = part  # type: ignore[misc]
    return [(images[i].name, int(labels[i])) for i in range(len(images))]


def test_a_table_beside_the_images_has_their_labels(kaggle: Path) -> None:
    save(kaggle / "Train.csv", "path,label", "images/0001.png,dog", "images/0000.png,cat", "images/0002.png,")
    save(kaggle / "test.csv", "path", "images/0003.png")
    save(kaggle / "sample_submission.csv", "id,prediction", "3,cat")
    found = source(kaggle)
    assert isinstance(found, Listed)
    assert found.splits() == ["test", "train"]
    part = found.read("train")
    assert part.classes == ["cat", "dog"]
    assert rows(part) == [("0001.png", 1), ("0000.png", 0), ("0002.png", -1)]
    assert part.images.name(0) == f"{kaggle}/images/0001.png ({kaggle}/Train.csv, line 2)"
    assert found.read("test").labels.tolist() == [-1]
    assert found.notes(["train", "test"]) == ["images and labels are those of Train.csv, test.csv"]
    before = found.fingerprint()
    save(kaggle / "test.csv", "path", "images/0002.png")
    assert source(kaggle).fingerprint() != before


@pytest.mark.parametrize("name", ["list.csv", "list.tsv", "list.jsonl", "LIST.JSON"])
def test_a_table_by_itself(kaggle: Path, name: str) -> None:
    pairs = [(f"images/000{i}.png", "ab"[i % 2]) for i in range(4)]
    if "js" in name.lower():
        lines = [f'{{"file": "{path}", "class": "{label}"}}' for path, label in pairs]
    else:
        between = "\t" if name.endswith(".tsv") else ","
        lines = [between.join(pair) for pair in [("file", "class"), *pairs]]
    found = source(save(kaggle / name, *lines))
    assert rows(found.read("train")) == [(f"000{i}.png", i % 2) for i in range(4)]


def test_absolute_and_windows_paths(kaggle: Path) -> None:
    table = save(kaggle / "a.csv", "file,label\r", f"{kaggle}/images/0000.png,x\r", "images\\0001.png,y\r")
    assert rows(source(table).read("train")) == [("0000.png", 0), ("0001.png", 1)]


def test_a_missing_file_is_an_image_that_cannot_be_read(kaggle: Path) -> None:
    table = save(kaggle / "a.csv", "path,label", "images/0000.png,x", "images/gone.png,y", ",y")
    images = source(table).read("train").images
    for position, cause in ((1, "gone.png .*line 3.*No such file"), (2, "line 4.*not a regular file")):
        with pytest.raises(UnreadableImage, match=cause):
            open_image(images[position], images.name(position), 3)
    table = save(kaggle / "b.csv", "path,label", "gone/0000.png,x", "gone/0001.png,y")
    with pytest.raises(ValueError, match=r"data.image_column=path: none of the 2 images of .*b.csv is there, such as"):
        source(table).read("train")


def test_columns_of_other_names(kaggle: Path) -> None:
    table = save(kaggle / "a.csv", "Bild,Art", "images/0000.png,x", "images/0001.png,y")  # codespell:ignore
    with pytest.raises(
        ValueError, match=r"data.label_column is not set, .*a.csv does not tell .* Give one of Art; for"
    ):
        source(table).read("train")
    assert source(table, label_column="Art").read("train").classes == ["x", "y"]
    with pytest.raises(ValueError, match=r"data.label_column=art: no such column. There are: Bild, Art"):
        source(table, label_column="art").read("train")
    with pytest.raises(ValueError, match=r"data.image_column=path: no such column. There are: Bild, Art"):
        source(table, image_column="path").read("train")
    two = save(kaggle / "b.csv", "left,right,label", "images/0000.png,images/0001.png,1")
    with pytest.raises(ValueError, match=r"data.image_column is not set, .* Give one of left, right, label"):
        source(two).read("train")
    assert rows(source(two, image_column="right").read("train")) == [("0001.png", 0)]


def test_labels_follow_the_one_rule(kaggle: Path) -> None:
    table = save(
        kaggle / "a.csv", "path,label", *[f"images/000{i}.png,{y}" for i, y in enumerate(["NA", "1.0", "-1", ""])]
    )
    part = source(table).read("train")
    assert (part.classes, part.labels.tolist()) == (["1", "NA"], [1, 0, -1, -1])
    table = save(kaggle / "b.csv", "path,label", "images/0000.png,0.5")
    with pytest.raises(ValueError, match=r"data.label_column=label: .*b.csv holds 0.5, which is no class"):
        source(table).read("train")


def test_class_folders_come_first_and_other_tables_are_left_out(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        write(tmp_path / "pets" / name, 1)
    save(tmp_path / "pets" / "list.csv", "path,label", "cat/0000.png,x", "dog/0000.png,x")
    found = source(tmp_path / "pets")
    assert isinstance(found, Folder)
    assert found.read("train").classes == ["cat", "dog"]
    assert found.notes(["train"])[0].startswith("files left out by their endings: 1 .csv (such as")
    write(tmp_path / "flat", 2)
    save(tmp_path / "flat" / "sizes.csv", "id,size", "1,2")
    assert isinstance(source(tmp_path / "flat"), Folder)


@pytest.mark.parametrize("cell", ["{:04d}.png", "{:04d}", "{:04d}.PNG"])
def test_names_alone_are_those_in_the_folder_beside_the_table(kaggle: Path, cell: str) -> None:
    if cell.endswith("PNG"):
        for path in (kaggle / "images").iterdir():
            path.rename(path.with_suffix(".PNG"))
    save(kaggle / "labels.csv", "id,class", *(f"{cell.format(i)},{'ab'[i % 2]}" for i in range(3)))
    save(kaggle / "sample_submission.csv", "id,class", f"{cell.format(3)},a")
    found = source(kaggle)
    assert isinstance(found, Listed)
    assert [(name.lower(), label) for name, label in rows(found.read("train"))] == [
        (f"{i:04d}.png", i % 2) for i in range(3)
    ]
    assert found.notes(["train"])[-1].startswith("1 images left out, such as ")
    assert "0003.png" in found.notes(["train"])[-1].lower()


def test_of_several_folders_it_is_that_of_the_split(tmp_path: Path) -> None:
    for split in ("train", "test"):
        write(tmp_path / split, 3)
    table = save(tmp_path / "Train.csv", "id,label", "0000,x", "0001,y")
    assert [Path(source(tmp_path).read("train").images[i]).parent.name for i in (0, 1)] == ["train"] * 2  # type: ignore[arg-type]
    table.rename(tmp_path / "a.csv")
    with pytest.raises(ValueError, match=r"a.csv: the images that it names lie in .*test, .*train, so it is unclear"):
        source(tmp_path)


def test_numbers_that_are_no_names_of_images(tmp_path: Path) -> None:
    folder = tmp_path / "numbers"
    write(folder, 12)
    for i, path in enumerate(sorted(folder.iterdir())):
        path.rename(folder / f"{i}.png")
    save(folder / "sizes.csv", "width,height", *(f"{i % 2},{20 + i}" for i in range(12)))
    assert isinstance(source(folder), Folder)


def test_an_image_with_two_labels_is_refused(kaggle: Path) -> None:
    table = save(kaggle / "a.csv", "path,label", "images/0000.png,x", "images/0001.png,y", "images/0000.png,y")
    with pytest.raises(ValueError, match=r"0000.png has two labels, in .*line 2, and .*line 4. An image has one class"):
        source(table).read("train")


def test_a_table_without_rows_is_named(kaggle: Path) -> None:
    table = save(kaggle / "a.csv", "path,label")
    with pytest.raises(ValueError, match=r"a.csv has no rows. Give a table of images"):
        source(table).splits()


def test_tables_of_one_split_have_the_same_columns(kaggle: Path) -> None:
    save(kaggle / "a.csv", "path,label", "images/0000.png,x", "images/0001.png,y")
    save(kaggle / "b.csv", "path,weight", "images/0002.png,1", "images/0003.png,2")
    with pytest.raises(ValueError, match=r"a.csv \(path, label\) and .*b.csv \(path, weight\) have different columns"):
        source(kaggle).read("train")


def test_images_of_one_table_in_folders_of_splits(tmp_path: Path) -> None:
    for split in ("train", "Val", "other"):
        write(tmp_path / split, 2)
    lines = [f"{split}/000{i}.png,{chr(97 + i)}" for split in ("train", "Val", "other") for i in range(2)]
    save(tmp_path / "labels.csv", "path,label", *lines)
    found = source(tmp_path)
    assert found.splits() == ["train", "val"]
    assert [len(found.read(split).labels) for split in found.splits()] == [4, 2]
    save(tmp_path / "labels.csv", "path,label", *lines[2:])  # no train: these are names like any other
    assert source(tmp_path).splits() == ["train"]


def test_a_table_in_a_folder_beside_the_images(kaggle: Path) -> None:
    (kaggle / "tables").mkdir()
    save(kaggle / "tables" / "train.csv", "path,label", "images/0000.png,a", "images/0001.png,b")
    assert rows(source(kaggle).read("train")) == [("0000.png", 0), ("0001.png", 1)]


def test_metadata_as_on_the_hub_keep_their_words(tmp_path: Path) -> None:
    for split in ("train", "test"):
        write(tmp_path / split, 2)
        save(tmp_path / split / "metadata.csv", "file_name,label", "0000.png,NA", "0001.png,007")
    found = source(tmp_path)
    assert found.splits() == ["test", "train"]
    assert found.read("train").classes == ["007", "NA"]
    save(tmp_path / "train" / "metadata.csv", "file_name,text", "0000.png,a cat", "0001.png,a dog")
    assert source(tmp_path).read("train").classes == []
