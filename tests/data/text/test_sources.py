"""What a path stands for, and tables through `datasets`."""

import subprocess
import sys
from pathlib import Path

import datasets
import pytest

from ssl_zoo.data.text.files import StandardLibrary, TextFiles
from ssl_zoo.data.text.sources import TextTables, open_texts

ROWS = {"text": ["good", "", "bad", None], "label": [1, 0, 0, -1]}


def table(path: Path, named: bool = True) -> Path:
    label = datasets.ClassLabel(names=["neg", "pos"]) if named else datasets.Value("int64")
    features = datasets.Features({"text": datasets.Value("string"), "label": label})
    path.parent.mkdir(parents=True, exist_ok=True)
    datasets.Dataset.from_dict(ROWS, features=features).to_parquet(str(path))
    return path


def test_what_a_path_stands_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(open_texts("python:stdlib"), StandardLibrary)
    (tmp_path / "corpus").write_text("x")
    assert isinstance(open_texts(str(tmp_path / "corpus")), TextFiles)
    assert isinstance(open_texts(str(table(tmp_path / "imdb/train-00000-of-00001.parquet"))), TextTables)
    (tmp_path / "capitals").mkdir()
    for name in ("a.TXT", "a.JSONL"):
        (tmp_path / "capitals" / name).write_text("x")
        assert isinstance(open_texts(str(tmp_path / "capitals")), TextFiles)
        (tmp_path / "capitals" / name).unlink()
    monkeypatch.setenv("SSL_ZOO_DATA", str(tmp_path))
    local, remote = open_texts("stanfordnlp/imdb"), open_texts("stanfordnlp/other")
    assert isinstance(local, TextTables)
    assert local.place == tmp_path / "imdb"
    assert isinstance(remote, TextTables)
    assert remote.place == "stanfordnlp/other"


@pytest.mark.parametrize("named", [True, False])
def test_a_folder_in_the_hub_layout(tmp_path: Path, named: bool) -> None:
    for split in ("train", "test"):
        table(tmp_path / f"{split}-00000-of-00001.parquet", named)
    source = open_texts(str(tmp_path), label_column="label")
    assert source.splits() == ["test", "train"]
    assert source.class_names() == (["neg", "pos"] if named else None)
    neg, pos = ("neg", "pos") if named else ("0", "1")
    assert list(source.read("train", True)) == [("good", pos), ("", neg), ("bad", neg), ("", None)]
    assert list(source.read("test", False)) == [("good", None), ("", None), ("bad", None), ("", None)]


def test_single_tables(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('text,label\n"one, two",x\nthree,y\n')
    (tmp_path / "a.tsv").write_text("text\tlabel\none, two\tx\nthree\ty\n")
    for path in (tmp_path / "a.csv", tmp_path / "a.tsv"):
        source = open_texts(str(path), label_column="label")
        assert list(source.read("train", True)) == [("one, two", "x"), ("three", "y")]
    (tmp_path / "a.tsv").rename(tmp_path / "B.TSV")
    assert list(open_texts(str(tmp_path / "B.TSV")).read("train", False)) == [("one, two", None), ("three", None)]
    source = open_texts(str(table(tmp_path / "a.parquet")), label_column="label")
    assert [label for _, label in source.read("train", True)] == ["pos", "neg", "neg", None]


def test_the_key_needs_no_reading(tmp_path: Path) -> None:
    path = table(tmp_path / "a.parquet")
    script = "import sys; from ssl_zoo.data.text.sources import open_texts; print(open_texts(sys.argv[1]).key()); "
    script += "assert not {'datasets', 'pyarrow', 'pandas', 'torch'} & sys.modules.keys()"
    shown = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True).stdout
    assert shown.strip() == str(open_texts(str(path)).key())
    assert open_texts(str(path), label_column="label").key() != open_texts(str(path)).key()


def test_a_missing_column_names_those_there_are(tmp_path: Path) -> None:
    path = table(tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=r"data\.text_column=body: .*split train, has no such column.*: text, label"):
        list(open_texts(str(path), text_column="body").read("train", False))
    with pytest.raises(ValueError, match=r"data\.text_column=label: .* holds int there"):
        list(open_texts(str(path), text_column="label").read("train", False))


def test_paths_that_lead_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"data\.path=.*/nothing: no such file or folder"):
        open_texts(str(tmp_path / "nothing"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"data\.path=.*/empty: the folder .* holds no files"):
        open_texts(str(tmp_path / "empty"))
    with pytest.raises(ValueError, match=r"data\.documents=page: give line, blank"):
        open_texts(str(tmp_path), documents="page")

    def offline(*_: str) -> None:
        raise ConnectionError("Couldn't reach the Hub")

    monkeypatch.setattr("datasets.load_dataset_builder", offline)
    source = open_texts("some/name")
    with pytest.raises(
        ValueError, match=r"data\.path=some/name: Couldn't reach the Hub\. There is no folder .* either"
    ):
        source.splits()


def test_tables_that_cannot_be_read(tmp_path: Path) -> None:
    whole = table(tmp_path / "a.parquet").read_bytes()
    (tmp_path / "cut.parquet").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"data\.path=.*cut\.parquet.*"):
        list(open_texts(str(tmp_path / "cut.parquet"), label_column="label").read("train", True))
    (tmp_path / "hub").mkdir()
    table(tmp_path / "hub/train.parquet")
    with pytest.raises(ValueError, match=r"data\.path=.* data\.name=other: BuilderConfig 'other' not found"):
        open_texts(str(tmp_path / "hub"), name="other").splits()


def test_splits_of_parquet_files_in_any_spelling(tmp_path: Path) -> None:
    table(tmp_path / "Train.parquet", named=False)
    label = datasets.Features({"text": datasets.Value("string"), "label": datasets.Value("float64")})
    rows = {"text": ["one", "two"], "label": [1.0, None]}  # another type than in the other split
    datasets.Dataset.from_dict(rows, features=label).to_parquet(str(tmp_path / "TEST.parquet"))
    source = open_texts(str(tmp_path), label_column="label")
    assert source.splits() == ["test", "train"]
    assert list(source.read("test", True)) == [("one", "1"), ("two", None)]
    (tmp_path / "dev.csv").write_text("text,label\none,1\n")
    left_out = f"files left out by their endings: 1 .csv (such as {tmp_path}/dev.csv)"
    assert source.notes(["train"]) == ["splits not used: test (1 files)", left_out]


def test_csv_of_a_data_card_has_no_missing_values_but_empty_ones(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,label\nnull,NA\ntwo,EU\nthree,\n")
    card = "---\nconfigs:\n- config_name: default\n  data_files:\n  - split: train\n    path: a.csv\n---\n"
    (tmp_path / "README.md").write_text(card)
    source = open_texts(str(tmp_path), label_column="label")
    assert isinstance(source, TextTables)
    assert list(source.read("train", True)) == [("null", "NA"), ("two", "EU"), ("three", None)]
