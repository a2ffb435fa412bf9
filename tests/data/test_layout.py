"""What a folder is, for images, texts and tables alike: splits in any spelling, classes, links, what is left out."""

import os
from pathlib import Path

import pytest

from ssl_zoo.data.layout import Layout, Walk, count_endings, ending


def make(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        if name.endswith("/"):
            path.mkdir(parents=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(name)
    return root


def layout(root: Path, kind: str = "images", endings: tuple[str, ...] = (".jpg",)) -> Layout:
    return Layout(Walk(root), endings, kind)  # type: ignore[arg-type]


def found(root: Path, kind: str = "images", endings: tuple[str, ...] = (".jpg",)) -> dict[str, list[str | None]]:
    """The class of each file of each split."""
    it = layout(root, kind, endings)
    return {split: [it.class_of(path, split) for path in files] for split, files in it.splits.items()}


@pytest.mark.parametrize(
    ("train", "test"), [("train", "test"), ("Train", "Test"), ("TRAIN", "val"), ("Training", "DEV")]
)
@pytest.mark.parametrize("kind", ["images", "texts"])
def test_splits_of_classes(tmp_path: Path, train: str, test: str, kind: str) -> None:
    make(tmp_path, f"{train}/cat/1.jpg", f"{train}/dog/2.jpg", f"{test}/dog/3.jpg", f"{test}/cat/4.jpg")
    expected = {"train": ["cat", "dog"], "test" if test == "Test" else test.lower(): ["cat", "dog"]}
    assert found(tmp_path, kind) == expected
    assert found(make(tmp_path / "again" / "wrapped", "Train/cat/1.jpg", "Train/dog/1.jpg").parent, kind) == {
        "train": ["cat", "dog"]
    }


def test_flat_splits_and_a_further_one(tmp_path: Path) -> None:
    make(tmp_path, "train/1.jpg", "test/2.jpg", "extra/3.jpg")
    assert found(tmp_path) == {"train": [None], "test": [None], "extra": [None]}
    assert layout(tmp_path).notes(["train", "test"]) == ["splits not used: extra (1 files)"]


def test_train_may_be_a_class(tmp_path: Path) -> None:
    assert found(make(tmp_path, "bus/1.jpg", "car/1.jpg", "train/1.jpg")) == {"train": ["bus", "car", "train"]}


def test_splits_without_train_are_no_classes(tmp_path: Path) -> None:
    assert sorted(found(make(tmp_path, "val/cat/1.jpg", "test/cat/1.jpg"))) == ["test", "val"]


def test_files_are_splits_of_texts_and_tables_only(tmp_path: Path) -> None:
    make(tmp_path, "train.jpg", "test.jpg", "plane.jpg")
    assert found(tmp_path) == {"train": [None] * 3}
    assert found(tmp_path, "texts") == {"plane": [None], "test": [None], "train": [None]}
    make(tmp_path / "b", "Train.csv", "Test.csv")
    assert sorted(found(tmp_path / "b", "tables", (".csv",))) == ["test", "train"]
    make(tmp_path / "c", "data.csv", "test.csv")  # test rows are never trained on
    assert sorted(found(tmp_path / "c", "tables", (".csv",))) == ["data", "test"]
    make(tmp_path / "d", "labels.csv", "train/1.jpg", "test/1.jpg")  # what the table lies beside is none of its splits
    assert found(tmp_path / "d", "tables", (".csv",)) == {"train": [None]}


@pytest.mark.parametrize(
    "names",
    [
        ["A/cat/1.jpg", "A/dog/1.jpg", "B/cat/1.jpg", "B/dog/1.jpg"],
        ["cat/train/1.jpg", "cat/test/1.jpg", "dog/train/1.jpg", "dog/more/1.jpg"],
        ["bottle/train/good/1.jpg", "bottle/test/bad/1.jpg", "nut/train/good/1.jpg", "nut/test/bad/1.jpg"],
    ],
)
def test_folders_that_may_be_splits_or_classes_are_refused(tmp_path: Path, names: list[str]) -> None:
    with pytest.raises(ValueError, match=r"it is unclear which are splits and which are classes. Arrange them as"):
        layout(make(tmp_path, *names))
    with pytest.raises(ValueError, match=r"it is unclear which are splits"):
        layout(make(tmp_path / "tables", "en/train.csv", "en/test.csv", "de/train.csv"), "tables", (".csv",))


def test_folders_in_classes_are_part_of_them(tmp_path: Path) -> None:
    names = ["animals/cat/1.jpg", "animals/dog/1.jpg", "vehicles/car/1.jpg"]
    assert found(make(tmp_path / "a", *names)) == {"train": ["animals", "animals", "vehicles"]}
    names = ["train/n1/images/1.jpg", "train/n2/images/1.jpg"]
    assert found(make(tmp_path / "b", *names)) == {"train": ["n1", "n2"]}


def test_two_spellings_of_one_split_are_refused(tmp_path: Path) -> None:
    make(tmp_path, "Train/cat/1.jpg", "train/cat/1.jpg")
    with pytest.raises(ValueError, match=r"Train and train are both the split train. Join them, or rename one"):
        layout(tmp_path)
    shards = make(tmp_path / "shards", "train-1.csv", "train-2.csv")
    assert found(shards, "tables", (".csv",)) == {"train": [None, None]}


def test_an_empty_class_is_named(tmp_path: Path) -> None:
    it = layout(make(tmp_path, "cat/1.jpg", "dog/"))
    with pytest.raises(ValueError, match=r"no images in class dog of .*; remove its folder"):
        it.check_filled("train", "images")


def test_what_systems_leave_behind_is_no_data(tmp_path: Path) -> None:
    make(
        tmp_path,
        "cat/1.jpg",
        "dog/1.jpg",
        "cat/._1.jpg",
        ".git/HEAD",
        "__MACOSX/cat/1.jpg",
        "Thumbs.db",
        "dog/desktop.ini",
    )
    assert found(tmp_path) == {"train": ["cat", "dog"]}
    assert layout(tmp_path).notes(["train"]) == []


def test_folders_with_a_dot_are_named_if_they_hold_such_files(tmp_path: Path) -> None:
    make(tmp_path, "cat/1.jpg", "dog/1.jpg", ".bird/1.jpg", ".cache/README.md")
    it = layout(tmp_path)
    assert it.classes("train") == ["cat", "dog"]
    assert it.notes(["train"]) == [f"folders left out, whose names begin with a dot: {tmp_path}/.bird"]


@pytest.mark.parametrize("between", ["{}/", "images/", "{}_images/", "images/{}/"])
def test_folders_that_wrap_the_classes_are_none(tmp_path: Path, between: str) -> None:
    names = [f"{split}/{between.format(split)}{name}/1.jpg" for split in ("train", "test") for name in ("cat", "dog")]
    assert found(make(tmp_path, *names)) == {"train": ["cat", "dog"], "test": ["cat", "dog"]}


def test_one_folder_with_images_is_a_class(tmp_path: Path) -> None:
    make(tmp_path, "train/cat/1.jpg", "test/cat/1.jpg", "test/dog/1.jpg")
    assert found(tmp_path) == {"train": ["cat"], "test": ["cat", "dog"]}
    assert found(make(tmp_path / "flat", "train/train/1.jpg", "test/test/1.jpg")) == {"train": [None], "test": [None]}


def test_names_that_differ_in_the_split_alone_are_refused(tmp_path: Path) -> None:
    make(tmp_path, *(f"seg_{part}/seg_{part}/{name}/1.jpg" for part in ("train", "test") for name in ("cat", "dog")))
    with pytest.raises(ValueError, match=r"folders seg_test, seg_train of .* are called like splits. Name them train"):
        layout(tmp_path)


def test_one_table_in_two_formats_is_refused(tmp_path: Path) -> None:
    make(tmp_path, "train.csv", "train.jsonl", "test.csv")
    with pytest.raises(ValueError, match=r"train.csv and train.jsonl of .* look like one table in two formats"):
        layout(tmp_path, "tables", (".csv", ".jsonl"))
    assert layout(tmp_path, "tables", (".csv",)).divided


def test_files_left_out_are_counted_by_ending(tmp_path: Path) -> None:
    make(tmp_path, "cat/1.jpg", "dog/2.jpg", "cat/3.heic", "dog/4.HEIC", "README")
    (note,) = layout(tmp_path).notes(["train"])
    assert note.startswith("files left out by their endings: 2 .heic (such as ")
    assert note.endswith(f"1 without an ending (such as {tmp_path}/README)")
    assert count_endings([Path("a.CSV.GZ")]) == "1 .csv.gz (such as a.CSV.GZ)"
    assert ending(Path("a.tar.gz")) == ".tar.gz"


class TestLinks:
    """Each file once, however links run."""

    @pytest.fixture
    def pets(self, tmp_path: Path) -> Path:
        return make(tmp_path / "pets", "cat/1.jpg", "cat/2.jpg", "dog/1.jpg", "dog/2.jpg")

    def test_upwards(self, pets: Path) -> None:
        for target in ("..", "../..", "/", "."):
            (pets / "cat" / "up").unlink(missing_ok=True)
            (pets / "cat" / "up").symlink_to(target)
            assert found(pets) == {"train": ["cat"] * 2 + ["dog"] * 2}
        assert "1 links left out, such as " in layout(pets).notes(["train"])[0]

    def test_to_one_another(self, pets: Path) -> None:
        (pets / "a").symlink_to("cat")
        (pets / "loop").symlink_to("loop")
        (pets / "dog" / "3.jpg").symlink_to(pets / "cat" / "1.jpg")
        assert found(pets) == {"train": ["cat"] * 2 + ["dog"] * 2}

    def test_out_of_the_folder_they_are_followed(self, pets: Path, tmp_path: Path) -> None:
        make(tmp_path / "pool", "1.jpg", "2.jpg", "more/3.jpg")
        (pets / "fox").symlink_to(tmp_path / "pool")
        (pets / "dog" / "9.jpg").symlink_to(tmp_path / "pool" / "1.jpg")
        assert found(pets)["train"].count("fox") == 3

    def test_a_split_may_be_one(self, pets: Path, tmp_path: Path) -> None:
        root = make(tmp_path / "set", "v2/cat/1.jpg", "v2/dog/1.jpg", "test/cat/1.jpg", "test/dog/1.jpg")
        (root / "train").symlink_to("v2")
        assert found(root) == {"test": ["cat", "dog"], "train": ["cat", "dog"]}
        (root / "val").symlink_to("v2")  # the same images again
        assert found(root) == {"test": ["cat", "dog"], "train": ["cat", "dog"]}

    def test_all_splits_to_one_folder(self, pets: Path, tmp_path: Path) -> None:
        root = tmp_path / "data"
        root.mkdir()
        (root / "train").symlink_to(pets)
        (root / "test").symlink_to(pets)
        it = layout(root)
        assert list(it.splits) == ["train"]
        assert f"1 links left out, such as {root}/test: " in it.notes(["train"])[0]
        (root / "test").unlink()
        (root / "train").rename(root / "x")
        make(root, "test/cat/1.jpg", "test/dog/1.jpg")
        (root / "train").symlink_to("test")
        (root / "x").unlink()
        with pytest.raises(ValueError, match=r"data/train is a link to .*data/test, which is another split already"):
            layout(root)

    def test_without_a_target_they_are_files_that_cannot_be_read(self, pets: Path) -> None:
        (pets / "cat" / "3.jpg").symlink_to("gone")
        os.mkfifo(pets / "cat" / "4.jpg")
        assert found(pets)["train"].count("cat") == 4
