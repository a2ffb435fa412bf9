"""A path finds the local copy first, a missing one is named, a fingerprint follows the content."""

import os
from pathlib import Path

import pytest

from ssl_zoo.data.locate import fingerprint, load_tables, locate


def test_the_local_copy_comes_before_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSL_ZOO_DATA", raising=False)
    (tmp_path / "shelf" / "cifar10").mkdir(parents=True)
    (tmp_path / "other" / "owner" / "pets").mkdir(parents=True)
    assert locate("uoft-cs/cifar10") == "uoft-cs/cifar10"
    assert locate("uoft-cs/cifar10", root=str(tmp_path / "shelf")) == tmp_path / "shelf" / "cifar10"
    monkeypatch.setenv("SSL_ZOO_DATA", str(tmp_path / "shelf"))
    assert locate("uoft-cs/cifar10") == tmp_path / "shelf" / "cifar10"
    assert locate("cifar10") == tmp_path / "shelf" / "cifar10"
    assert locate("owner/pets", root=str(tmp_path / "other")) == tmp_path / "other" / "owner" / "pets"
    assert locate(str(tmp_path)) == tmp_path


@pytest.mark.parametrize("path", ["foo", "/no/such/folder", "a/b/c", "./x", ""])
def test_a_missing_folder_is_named(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSL_ZOO_DATA", raising=False)
    if path:
        with pytest.raises(
            ValueError, match=rf"^data.path={path}: no such file or folder. Give one that exists, or a hub"
        ):
            locate(path)
    else:
        assert locate(path) == Path()  # here


def test_the_fingerprint_follows_names_and_contents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    a.write_text("1")
    b.write_text("2")
    first = fingerprint([a, b], tmp_path)
    assert fingerprint([b, a], tmp_path) == first
    os.utime(a, (1, 1))
    assert fingerprint([a, b], tmp_path) == first  # a copy is the same data
    a.write_text("3")
    os.utime(a, (1, 1))
    assert fingerprint([a, b], tmp_path) != first
    # Too much to read at every start: size and time have to do.
    monkeypatch.setattr(
        "ssl_zoo.data.locate.HASHED_BYTES", 1
    )  # too much to read at every start: size and time have to do
    large = fingerprint([a, b], tmp_path)
    os.utime(a, (2, 2))
    assert fingerprint([a, b], tmp_path) != large


@pytest.mark.parametrize("name", ["x.jpg", "x.zip", "x.txt", "x"])
def test_a_file_that_is_no_table_is_refused_by_its_ending(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("hi")
    with pytest.raises(ValueError, match=rf"^data.path=.*/{name}: .* no data set. Give a folder of images, .*hub id"):
        load_tables(tmp_path / name)


def test_a_damaged_parquet_file_is_named_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hub")
    monkeypatch.setattr(datasets.utils.logging.get_logger(), "propagate", True)
    datasets.Dataset.from_dict({"a": list(range(10000))}).to_parquet(tmp_path / "WHOLE.PARQUET")
    assert len(load_tables(tmp_path / "WHOLE.PARQUET")["train"]) == 10000
    whole = (tmp_path / "WHOLE.PARQUET").read_bytes()
    zeroed = whole[:100] + bytes(len(whole) // 2) + whole[100 + len(whole) // 2 :]
    for content in (b"", b"hi", whole[: len(whole) // 2], zeroed):
        (tmp_path / "bad.parquet").write_bytes(content)
        with pytest.raises(
            ValueError, match=r"^data.path=.*/bad.parquet: cannot be read as a data set. .*[^.]\. Replace the file$"
        ) as error:
            load_tables(tmp_path / "bad.parquet")
        assert "\n" not in str(error.value)
    assert "Failed to read" not in caplog.text


def test_tables_that_cannot_be_had_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets
    import huggingface_hub.constants

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hub")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match=r"data.path=owner/nothing: no such folder here, and the Hub does not give it"):
        load_tables("owner/nothing")


def test_a_home_that_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"data.path=~nobody_at_all/pets: no such folder, and no home of such a user"):
        locate("~nobody_at_all/pets")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "~nobody_at_all").mkdir()
    assert locate("~nobody_at_all") == Path("~nobody_at_all")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert locate("~") == tmp_path
