"""Class folders, flat folders, tables and digits give their images and labels; what is wrong with them is named."""

from pathlib import Path

import numpy as np
import pytest
import torch

from ssl_zoo.data.image.decode import UnreadableImage, open_image
from ssl_zoo.data.image.sources import Digits, Folder, ImageTables, open_images
from ssl_zoo.data.image.splits import ImageSource, read_splits
from tests.data.pictures import encode, picture, write


def source(path: Path | str, image_column: str | None = None, label_column: str | None = None) -> ImageSource:
    return open_images(str(path), None, image_column, label_column)


def test_class_folders(tmp_path: Path) -> None:
    write(tmp_path / "dog", 2)
    write(tmp_path / "cat", 1)
    write(tmp_path / "cat" / "more", 1)
    for name in ("cat/._0000.png", "cat/.DS_Store", "cat/notes.txt", ".hidden/0000.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    found = source(tmp_path)
    assert isinstance(found, Folder)
    assert found.splits() == ["train"]
    part = found.read("train")
    assert part.classes == ["cat", "dog"]
    names = [str(Path(part.images.name(i)).relative_to(tmp_path)) for i in range(len(part.images))]
    assert list(zip(names, part.labels.tolist(), strict=True)) == [
        ("cat/0000.png", 0),
        ("cat/more/0000.png", 0),
        ("dog/0000.png", 1),
        ("dog/0001.png", 1),
    ]


def test_splits_are_folders_beside_train(tmp_path: Path) -> None:
    write(tmp_path / "train" / "cat", 1)
    write(tmp_path / "val" / "cat", 2)
    write(tmp_path / "unlabeled", 3, "jpg")
    found = source(tmp_path)
    assert found.splits() == ["train", "unlabeled", "val"]
    assert found.read("val").labels.tolist() == [0, 0]
    assert found.read("unlabeled").labels.tolist() == [-1, -1, -1]
    assert found.read("unlabeled").classes == []


def test_train_may_be_a_class(tmp_path: Path) -> None:
    for name in ("bus", "car", "train"):
        write(tmp_path / name, 1)
    assert source(tmp_path).splits() == ["train"]
    assert source(tmp_path).read("train").classes == ["bus", "car", "train"]


def test_a_flat_folder_has_no_labels(tmp_path: Path) -> None:
    paths = write(tmp_path / "fläche \udcff", 3)  # names of any bytes
    part = source(tmp_path / "fläche \udcff").read("train")
    assert [part.images[i] for i in range(3)] == paths
    assert part.labels.tolist() == [-1] * 3
    assert part.classes == []


def test_bad_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"data.path=.*missing: no such file or folder"):
        source(tmp_path / "missing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"data.path=.*empty: no images in .*empty. It holds no files; images end in"):
        source(tmp_path / "empty").read("train")
    write(tmp_path / "half" / "cat", 1)
    (tmp_path / "half" / "dog").mkdir()
    with pytest.raises(ValueError, match=r"data.path=.*half: no images in class dog of .*; remove its folder"):
        source(tmp_path / "half").read("train")
    write(tmp_path / "half", 1)
    with pytest.raises(ValueError, match=r"data.path=.*half holds both folders and images \(0000.png\)"):
        source(tmp_path / "half").read("train")


def test_the_fingerprint_follows_the_images(tmp_path: Path) -> None:
    write(tmp_path / "a", 2)
    before = source(tmp_path).fingerprint()
    (tmp_path / "a" / "notes.txt").write_text("not an image")
    assert source(tmp_path).fingerprint() == before
    (tmp_path / "a").rename(tmp_path / "b")
    assert source(tmp_path).fingerprint() != before


class TestTables:
    """The same pictures in tables of several makes."""

    @pytest.fixture(autouse=True)
    def own_hub_cache(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        import datasets

        monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hub")

    def save(self, folder: Path, labels: list, label: object, split: str = "train", column: str = "img") -> None:
        import datasets

        images = [{"bytes": encode(picture(i)), "path": None} for i in range(len(labels))]
        features = datasets.Features({column: datasets.Image(), "label": label})
        table = datasets.Dataset.from_dict({column: images, "label": labels}, features=features)
        folder.mkdir(exist_ok=True)
        table.to_parquet(folder / f"{split}-00000-of-00001.parquet")

    def test_hub_layout_tells_its_columns(self, tmp_path: Path) -> None:
        import datasets

        names = datasets.ClassLabel(names=["cat", "dog"])
        self.save(tmp_path / "pets", [1, 0, None], names)
        self.save(tmp_path / "pets", [0], names, "test")
        found = source(tmp_path / "pets")
        assert isinstance(found, ImageTables)
        assert found.splits() == ["test", "train"]
        part = found.read("train")
        assert part.labels.tolist() == [1, 0, -1]
        assert part.classes == ["cat", "dog"]
        pixels = open_image(part.images[1], part.images.name(1), 3)
        assert (pixels == np.asarray(picture(1)).transpose(2, 0, 1)).all()
        assert part.images.name(1).endswith("pets, train, row 1")

    def test_a_parquet_file_and_labels_that_are_numbers_or_names(self, tmp_path: Path) -> None:
        import datasets

        self.save(tmp_path, [7, -1, 3], datasets.Value("int64"), "numbers", column="picture")
        part = source(tmp_path / "numbers-00000-of-00001.parquet", label_column="label").read("train")
        assert part.classes == ["3", "7"]
        assert part.labels.tolist() == [1, -1, 0]
        self.save(tmp_path, ["dog", "cat"], datasets.Value("string"), "names")
        part = source(tmp_path / "names-00000-of-00001.parquet", "img", "label").read("train")
        assert part.classes == ["cat", "dog"]
        assert part.labels.tolist() == [1, 0]

    def test_bytes_without_a_type(self, tmp_path: Path) -> None:
        import pandas

        pandas.DataFrame({"jpg": [encode(picture(0))], "text": ["x"]}).to_parquet(tmp_path / "a.parquet")
        part = source(tmp_path / "a.parquet", image_column="jpg").read("train")
        assert part.images[0] == encode(picture(0))
        assert part.labels.tolist() == [-1]

    def test_wrong_columns_are_named(self, tmp_path: Path) -> None:
        import datasets

        self.save(tmp_path / "a", [0.5, 1.0], datasets.Value("float64"))
        with pytest.raises(ValueError, match=r"data.image_column=pic: no such column. There are: img, label"):
            source(tmp_path / "a", image_column="pic").read("train")
        with pytest.raises(ValueError, match=r"data.label_column=label: holds 0.5, which is no class"):
            source(tmp_path / "a").read("train")
        two = {"left": [{"bytes": encode(picture(0)), "path": None}], "right": [{"bytes": b"", "path": None}]}
        features = datasets.Features({"left": datasets.Image(), "right": datasets.Image()})
        datasets.Dataset.from_dict(two, features=features).to_parquet(tmp_path / "two.parquet")
        with pytest.raises(ValueError, match=r"data.image_column is not set, .* Give one of left, right"):
            source(tmp_path / "two.parquet").read("train")

    def test_the_fingerprint_needs_no_opening(self, tmp_path: Path) -> None:
        import datasets

        self.save(tmp_path / "a", [0], datasets.Value("int64"))
        found = source(tmp_path / "a")
        before = found.fingerprint()
        assert "tables" not in vars(found)
        self.save(tmp_path / "a", [1], datasets.Value("int64"))
        assert found.fingerprint() != before

    def test_paths_are_relative_to_the_table(self, tmp_path: Path) -> None:
        import datasets
        import pandas

        write(tmp_path / "set" / "images", 2)
        paths = ["images/0000.png", "images/0001.png"]
        pandas.DataFrame({"image": paths, "label": ["a", "b"]}).to_parquet(tmp_path / "set" / "texts.parquet")
        structs = [{"bytes": None, "path": path} for path in paths]
        features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("string")})
        table = datasets.Dataset.from_dict({"image": structs, "label": ["a", "b"]}, features=features)
        table.data.table.replace_schema_metadata(None)
        pandas.DataFrame({"image": structs, "label": ["a", "b"]}).to_parquet(tmp_path / "set" / "structs.parquet")
        for name in ("texts", "structs"):
            images = source(tmp_path / "set" / f"{name}.parquet").read("train").images
            assert images[1] == tmp_path / "set" / "images" / "0001.png"

    def test_splits_in_any_spelling_and_labels_of_two_types(self, tmp_path: Path) -> None:
        import datasets

        self.save(tmp_path / "pets", [1, 0], datasets.Value("int64"), "Train")
        self.save(tmp_path / "pets", [0.0, None], datasets.Value("float64"), "TEST")
        parts = read_splits(source(tmp_path / "pets"), ["train"], "auto")
        assert {name: part.labels.tolist() for name, part in parts.items()} == {"train": [1, 0], "test": [0, -1]}
        assert source(tmp_path / "pets").notes(["train"]) == ["splits not used: test (1 files)"]

    def test_tar_shards_have_their_labels_in_cls(self, tmp_path: Path) -> None:
        import io
        import tarfile

        (tmp_path / "shards").mkdir()
        for split, first in (("train", 0), ("test", 10)):
            with tarfile.open(tmp_path / "shards" / f"{split}-0000.tar", "w") as tar:
                for i in range(first, first + 3):
                    for ending, content in (("png", encode(picture(i))), ("cls", str(i % 2).encode())):
                        info = tarfile.TarInfo(f"{i:04d}.{ending}")
                        info.size = len(content)
                        tar.addfile(info, io.BytesIO(content))
        for path, splits in (
            (tmp_path / "shards", ["test", "train"]),
            (tmp_path / "shards" / "train-0000.tar", ["train"]),
        ):
            found = source(path)
            assert found.splits() == splits
            part = found.read("train")
            assert (part.classes, part.labels.tolist()) == (["0", "1"], [0, 1, 0])
            pixels = open_image(part.images[1], part.images.name(1), 3)
            assert (pixels == np.asarray(picture(1)).transpose(2, 0, 1)).all()

    def test_class_folders_come_before_a_stray_table(self, tmp_path: Path) -> None:
        import datasets

        for name in ("cat", "dog"):
            write(tmp_path / "pets" / name, 1)
        self.save(tmp_path / "pets", [0], datasets.Value("int64"))
        assert isinstance(source(tmp_path / "pets"), Folder)
        (tmp_path / "pets" / "metadata.csv").write_text("id,length\n1,2\n")  # names no files
        assert isinstance(source(tmp_path / "pets"), Folder)


def test_digits_are_split_once_and_for_all() -> None:
    from sklearn.datasets import load_digits

    digits = Digits()
    train, test = digits.read("train"), digits.read("test")
    assert (len(train.images), len(test.images)) == (1397, 400)
    shares = np.bincount(test.labels) / np.bincount(load_digits().target)
    assert np.abs(shares - 400 / 1797).max() < 0.006  # stratified to one example
    assert train.classes == [str(n) for n in range(10)]
    rows = {np.asarray(part.images[i]).tobytes() for part in (train, test) for i in range(len(part.images))}
    assert len(rows) == len(np.unique(load_digits().data, axis=0))
    pixels = np.asarray(train.images[0])
    assert pixels.shape == (8, 8)
    assert pixels.max() == 255


def test_enlarged_digits_are_bilinear() -> None:
    from ssl_zoo.data.image.decode import resize_and_crop

    image = Digits().read("train").images[3]
    found = resize_and_crop(open_image(image, "digit", 1), 16)
    small = torch.from_numpy(np.array(image))[None, None].float()
    exact = torch.nn.functional.interpolate(small, size=16, mode="bilinear")[0].numpy()
    assert np.abs(found - exact).max() <= 1  # rounding, on either axis


@pytest.mark.parametrize(("train", "test"), [("Train", "Test"), ("TRAIN", "Validation"), ("training", "dev")])
def test_splits_in_any_spelling(tmp_path: Path, train: str, test: str) -> None:
    for split, count in ((train, 2), (test, 1)):
        for name in ("cat", "dog"):
            write(tmp_path / split / name, count)
    parts = read_splits(source(tmp_path), ["train"], "auto")
    assert {name: part.labels.tolist() for name, part in parts.items()} == {"train": [0, 0, 1, 1], "test": [0, 1]}
    assert read_splits(source(tmp_path), [train], test)["test"].classes == ["cat", "dog"]


def test_odd_names_of_classes(tmp_path: Path) -> None:
    names = sorted(["🐱", "it's", 'say "hi"', "a=b", "$5_$10", "[red]", "100%", "#1"])
    for name in names:
        write(tmp_path / name, 1)
    assert source(tmp_path).read("train").classes == names


def test_a_class_of_unlabelled_images(tmp_path: Path) -> None:
    for name in ("cat", "dog", "unlabeled"):
        write(tmp_path / name, 1)
    part = source(tmp_path).read("train")
    assert (part.classes, part.labels.tolist()) == (["cat", "dog"], [0, 1, -1])


def test_jfif_is_an_ending_of_images(tmp_path: Path) -> None:
    for i, ending in enumerate(("jpg", "jfif", "JFIF")):
        (tmp_path / f"{i}.{ending}").write_bytes(encode(picture(i), "JPEG"))
    assert len(source(tmp_path).read("train").images) == 3


def test_a_link_without_a_target_is_an_image_that_cannot_be_read(tmp_path: Path) -> None:
    write(tmp_path / "cat", 2)
    write(tmp_path / "dog", 2)
    (tmp_path / "cat" / "gone.png").symlink_to("nothing")
    found = source(tmp_path)
    before = found.fingerprint()
    part = found.read("train")
    assert part.labels.tolist() == [0, 0, 0, 1, 1]
    with pytest.raises(UnreadableImage, match=r"gone.png: .*No such file"):
        open_image(part.images[2], part.images.name(2), 3)
    (tmp_path / "cat" / "gone.png").unlink()
    (tmp_path / "cat" / "gone.png").write_bytes(encode(picture(0)))
    assert source(tmp_path).fingerprint() != before


def test_paths_in_parquet_are_found_as_those_of_other_tables(tmp_path: Path) -> None:
    import datasets

    for number, (table, cell) in enumerate(
        [
            ("train.parquet", "images/000{}.png"),
            ("data/train.parquet", "images/000{}.png"),
            ("train.parquet", "000{}.png"),
            ("train.parquet", "000{}"),
        ]
    ):
        root = tmp_path / str(number)
        paths = write(root / "images", 2)
        (root / table).parent.mkdir(exist_ok=True)
        rows = {"image": [cell.format(i) for i in range(2)], "label": [0, 1]}
        datasets.Dataset.from_dict(rows).to_parquet(root / table)
        images = source(root).read("train").images
        assert [images[i] for i in range(2)] == paths
