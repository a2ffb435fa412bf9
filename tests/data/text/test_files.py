"""Plain files and folders of them, the standard library, and bytes that are no text."""

from pathlib import Path

import pytest

from ssl_zoo.data.text.files import StandardLibrary, TextFiles


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def files(path: Path, documents: str | None = None, label_column: str | None = None) -> TextFiles:
    return TextFiles(path, documents, "text", label_column)


def read(source: TextFiles, split: str = "train", labelled: bool = True) -> list[tuple[str, str | None]]:
    return [(text.strip(), label) for text, label in source.read(split, labelled) if text.strip()]


@pytest.mark.parametrize(
    ("documents", "expected"),
    [
        (None, ["one", "two", "three", "four"]),
        ("line", ["one", "two", "three", "four"]),
        ("blank", ["one\ntwo", "three\nfour"]),
        ("file", ["one\ntwo\n\n\n \nthree\nfour"]),
    ],
)
def test_one_file(tmp_path: Path, documents: str | None, expected: list[str]) -> None:
    path = write(tmp_path / "corpus.tokens", "one\ntwo\n\n\n \nthree\nfour")
    source = files(path, documents)
    assert source.splits() == ["train"]
    assert read(source) == [(text, None) for text in expected]


def test_class_folders_and_splits(tmp_path: Path) -> None:
    for name in ("train/pos/1", "train/neg/1", "train/unsup/1", "test/pos/1", "test/neg/1"):
        write(tmp_path / f"{name}.txt", f"{name}\nmore")
    write(tmp_path / "train/urls.txt", "http://")
    write(tmp_path / "README", "not text")
    write(tmp_path / "train/pos/.hidden.txt", "x")
    source = files(tmp_path)
    assert source.splits() == ["test", "train"]
    train = [("train/neg/1\nmore", "neg"), ("train/pos/1\nmore", "pos"), ("train/unsup/1\nmore", None)]
    assert read(source) == train
    assert read(source, labelled=False) == [(text, None) for text, _ in train]
    assert [label for _, label in read(source, "test")] == ["neg", "pos"]


def test_a_folder_without_splits(tmp_path: Path) -> None:
    for name in ("a/1", "a/2", "b/deep/1"):
        write(tmp_path / f"{name}.txt", name)
    assert read(files(tmp_path)) == [("a/1", "a"), ("a/2", "a"), ("b/deep/1", "b")]


def test_files_named_by_split(tmp_path: Path) -> None:
    for name in ("train-00001.txt", "train-00002.txt", "test.txt"):
        write(tmp_path / name, f"{name}\n")
    source = files(tmp_path)
    assert read(source) == [("train-00001.txt", None), ("train-00002.txt", None)]
    assert read(source, "test") == [("test.txt", None)]


def test_endings_in_capitals(tmp_path: Path) -> None:
    write(tmp_path / "a/pos/1.TXT", "one")
    write(tmp_path / "a/neg/1.TXT", "two")
    write(tmp_path / "b/b.JSONL", '{"text": "three"}\n')
    assert read(files(tmp_path / "a")) == [("two", "neg"), ("one", "pos")]
    assert read(files(tmp_path / "b")) == [("three", None)]


def test_json_lines(tmp_path: Path) -> None:
    lines = '{"text": "one", "label": 1}\n\n{"text": null, "label": 0}\n{"label": -1, "text": "two"}\n'
    source = files(write(tmp_path / "a.jsonl", lines), label_column="label")
    assert read(source) == [("one", "1"), ("two", None)]
    assert read(files(tmp_path / "a.jsonl")) == [("one", None), ("two", None)]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{not json", r"a\.jsonl, line 2: not JSON"),
        ("[1]", r"a\.jsonl, line 2: not a JSON object"),
        ('{"body": "x"}', r"data\.text_column=text: .*a\.jsonl, line 2 has no such column.*: body"),
        ('{"text": "x"}', r"data\.label_column=label: .*a\.jsonl, line 2"),
        ('{"text": 1, "label": 0}', r"data\.text_column=text: .*a\.jsonl, line 2 holds int"),
    ],
)
def test_bad_json_names_its_line(tmp_path: Path, line: str, message: str) -> None:
    path = write(tmp_path / "a.jsonl", '{"text": "one", "label": 1}\n' + line)
    with pytest.raises(ValueError, match=message):
        read(files(path, label_column="label"))


def test_a_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", b"\xef\xbb\xbffirst\nsecond \xef\xbb\xbf")
    assert [text for text, _ in files(path).read("train", False)] == ["first\n", "second \ufeff"]


@pytest.mark.parametrize(
    ("content", "place"),
    [
        (b"fine\nna\xefve\n", "line 2, byte 7: not UTF-8 (0xef)"),
        (b"cut \xe2\x82", "line 1, byte 4: not UTF-8 (0xe2)"),
    ],
)
def test_other_encodings_are_named(tmp_path: Path, content: bytes, place: str) -> None:
    path = write(tmp_path / "a.txt", content)
    for documents in ("line", "blank", "file"):
        with pytest.raises(ValueError, match="not UTF-8") as error:
            read(files(path, documents))
        assert f"{path}, {place}" in str(error.value)
        assert str(error.value).endswith("iconv -f latin1 -t UTF-8")


@pytest.mark.parametrize(("mark", "encoding"), [(b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be")])
def test_utf_16_is_told_by_its_mark(tmp_path: Path, mark: bytes, encoding: str) -> None:
    path = write(tmp_path / "a.txt", mark + "one\ntwo".encode(encoding))
    with pytest.raises(ValueError, match=r"a\.txt, line 1, byte 0: not UTF-8 .* iconv -f UTF-16 -t UTF-8$"):
        read(files(path))


def test_the_key_follows_the_content(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "one")
    keys = [files(path).key(), files(path, "file").key()]
    write(path, "two")
    keys += [files(path).key()]
    write(path, "one")
    assert files(path).key() == keys[0]
    assert len({str(key) for key in keys}) == 3


def test_the_standard_library(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    write(tmp_path / "a.py", 'r"""Of the module. \\d"""\nclass A:\n    """Of the class."""\n    def f(self): "Of f."\n')
    write(tmp_path / "b/c.py", '"""Of the module. \\d"""\nasync def g():\n    """Of\n    g."""\nx = {"k": "v"}\n')
    write(tmp_path / "pydoc_data/topics.py", 'topics = {"if": "The if statement"}\n')
    write(tmp_path / "test/d.py", '"""Of a test."""')
    write(tmp_path / "site-packages/e.py", '"""Of a package."""')
    monkeypatch.setattr("sysconfig.get_paths", lambda: {"stdlib": str(tmp_path)})
    texts = [text for text, _ in StandardLibrary().read("train", False)]
    assert texts == ["Of the module. \\d", "Of the class.", "Of f.", "Of\ng.", "The if statement"]
    key = StandardLibrary().key()
    write(tmp_path / "a.py", '"""Other."""')
    assert StandardLibrary().key() != key


def test_a_python_without_sources_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("sysconfig.get_paths", lambda: {"stdlib": str(tmp_path)})
    with pytest.raises(ValueError, match="python:stdlib: this Python has no source files"):
        StandardLibrary().key()


def test_splits_in_any_spelling(tmp_path: Path) -> None:
    for name in ("Train/pos/1", "Train/neg/1", "TEST/pos/1", "TEST/neg/1"):
        write(tmp_path / f"folders/{name}.txt", name)
    source = files(tmp_path / "folders")
    assert source.splits() == ["test", "train"]
    assert read(source) == [("Train/neg/1", "neg"), ("Train/pos/1", "pos")]
    write(tmp_path / "folders/Train/urls.txt", "http://")
    (note,) = files(tmp_path / "folders").notes(["train", "test"])
    assert note.startswith("text beside class folders left out: 1 .txt (such as")
    write(tmp_path / "tables/Train.csv", "text,label\none,1\n")
    write(tmp_path / "tables/Val.TSV", "text\tlabel\ntwo\t0\n")
    source = files(tmp_path / "tables", label_column="label")
    assert source.splits() == ["train", "val"]
    assert (read(source), read(source, "val")) == ([("one", "1")], [("two", "0")])


def test_class_folders_come_before_tables_and_tables_before_text(tmp_path: Path) -> None:
    for name in ("pos/1.txt", "neg/1.txt"):
        write(tmp_path / "a" / name, name)
    write(tmp_path / "a/index.csv", "id,length\n1,5\n")
    write(tmp_path / "a/metadata.jsonl", '{"file_name": "x"}\n')
    source = files(tmp_path / "a", label_column="label")
    assert read(source) == [("neg/1.txt", "neg"), ("pos/1.txt", "pos")]
    (note,) = source.notes(["train"])
    assert note.startswith("files left out by their endings: 1 .csv (such as")
    write(tmp_path / "b/train.csv", "text\none\n")
    write(tmp_path / "b/classes.txt", "World\n")
    assert read(files(tmp_path / "b")) == [("one", None)]
    assert files(tmp_path / "b").notes(["train"])[0].startswith("files left out by their endings: 1 .txt")


def test_cells_stay_as_they_are(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "text,label\nNA,NA\nnull,EU\nthree,\nfour,nan\n")
    assert read(files(path, label_column="label")) == [("NA", "NA"), ("null", "EU"), ("three", None), ("four", "nan")]
    path = write(tmp_path / "a.tsv", 'text\tlabel\n"one\t1\n"two\t0\n')
    assert read(files(path, label_column="label")) == [('"one', "1"), ('"two', "0")]


def test_one_kind_of_label_in_all_formats(tmp_path: Path) -> None:
    lines = [
        f'{{"text": "{text}", "label": {label}}}'
        for text, label in zip("abcd", ("1", "1.0", "NaN", "-1.0"), strict=True)
    ]
    path = write(tmp_path / "a.jsonl", "\n".join(lines))
    assert read(files(path, label_column="label")) == [("a", "1"), ("b", "1"), ("c", None), ("d", None)]
    write(tmp_path / "b/train.csv", "text,label\none,1\ntwo,0\n")
    write(tmp_path / "b/test.csv", "text,label\none,\ntwo,1.0\n")
    assert read(files(tmp_path / "b", label_column="label"), "test") == [("one", None), ("two", "1")]
    path = write(tmp_path / "c.jsonl", '{"text": "a", "label": [1, 0]}')
    with pytest.raises(
        ValueError, match=r"^data\.label_column=label: .*c\.jsonl, line 1 holds \[1, 0\], which is no class"
    ):
        read(files(path, label_column="label"))


def test_compressed_text(tmp_path: Path) -> None:
    import gzip

    write(tmp_path / "a/1.txt.gz", gzip.compress(b"one\ntwo"))
    assert read(files(tmp_path / "a")) == [("one\ntwo", None)]
    assert read(files(tmp_path / "a/1.txt.gz")) == [("one", None), ("two", None)]
    path = write(tmp_path / "b.txt", gzip.compress(b"one"))
    with pytest.raises(ValueError, match=r"b\.txt is no text: .* Unpack it"):
        read(files(path))


def test_a_folder_without_text_says_what_it_holds(tmp_path: Path) -> None:
    write(tmp_path / "a/b.md", "one")
    with pytest.raises(
        ValueError, match=r"data\.path=.*a: nothing there is read as text.* It holds 1 \.md .* Rename or"
    ):
        files(tmp_path / "a")


def test_unlabelled_classes_and_empty_ones(tmp_path: Path) -> None:
    for name in ("pos/1", "neg/1", "Unsup/1"):
        write(tmp_path / f"{name}.txt", name)
    assert read(files(tmp_path)) == [("Unsup/1", None), ("neg/1", "neg"), ("pos/1", "pos")]
    (tmp_path / "neutral").mkdir()
    with pytest.raises(ValueError, match=r"no text in class neutral of .*; remove its folder"):
        files(tmp_path)


def test_a_label_column_of_plain_text_is_said_to_be_unused(tmp_path: Path) -> None:
    text = write(tmp_path / "a.txt", "one\ntwo\n")
    note = "data.label_column=y is not used: plain text has no columns"
    assert files(text, label_column="y").notes(["train"]) == [note]
    assert files(text).notes(["train"]) == []
    assert files(write(tmp_path / "a.ndjson", '{"text": "one", "y": 1}\n'), label_column="y").notes(["train"]) == []


def test_first_rows_and_files_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,label\none,1\ntwo,2\n")
    table = TextFiles(tmp_path / "a.csv", None, "text", None)
    assert table.sample_rows(1) == [{"text": "one", "label": "1"}]
    for name, content in (("b.txt", b"fine"), ("c.txt", b"\xff\xfe\x00")):
        (tmp_path / "plain").mkdir(exist_ok=True)
        (tmp_path / "plain" / name).write_bytes(content)
    plain = TextFiles(tmp_path / "plain", None, "text", None)
    assert plain.sample_rows(5) == []
    (message,) = plain.undecodable(10)
    assert "c.txt, line 1" in message
    assert StandardLibrary().sample_rows(5) == []
