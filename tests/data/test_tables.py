"""Tables as they stand: no missing values guessed, no quotes in TSV, compressed or not; damage named with a remedy."""

import bz2
import gzip
import lzma
from pathlib import Path

import pytest

from ssl_zoo.data.tables import read_lines, read_table


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def cells(path: Path) -> list[list[object]]:
    return [list(row.cells.values()) for row in read_table(path)]


def test_words_that_look_like_nothing_stay(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "text,label\nNA,NA\nnull,nan\n,\nNone,N/A\n007,1.50\n")
    assert cells(path) == [["NA", "NA"], ["null", "nan"], ["", ""], ["None", "N/A"], ["007", "1.50"]]


def test_csv_has_quotes_and_tsv_has_none(tmp_path: Path) -> None:
    assert cells(write(tmp_path / "a.csv", 'text,y\n"a ""b"", c\nd",1\nsay "hi",2\n')) == [
        ['a "b", c\nd', "1"],
        ['say "hi"', "2"],
    ]
    rows = [[f'"word {i}', str(i)] for i in range(4)]
    assert cells(write(tmp_path / "a.tsv", "text\ty\n" + "".join(f"{a}\t{b}\n" for a, b in rows))) == rows


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_line_ends_and_byte_order_marks(tmp_path: Path, end: str, mark: str) -> None:
    path = write(tmp_path / "A.CSV", mark + end.join(["text, y", "one,1", "", "two,2"]))
    rows = list(read_table(path))
    assert [row.cells for row in rows] == [{"text": "one", "y": "1"}, {"text": "two", "y": "2"}]
    assert rows[0].where == f"{path}, line 2"


@pytest.mark.parametrize(("outer", "opened"), [(".gz", gzip.open), (".bz2", bz2.open), (".XZ", lzma.open)])
def test_compressed_tables(tmp_path: Path, outer: str, opened: object) -> None:
    for kind, content in ((".csv", "a,b\n1,2\n"), (".tsv", "a\tb\n1\t2\n"), (".jsonl", '{"a": "1", "b": "2"}\n')):
        path = tmp_path / f"t{kind}{outer}"
        with opened(path, "wb") as file:  # type: ignore[operator]
            file.write(content.encode())
        assert cells(path) == [["1", "2"]]


def test_json_of_both_kinds(tmp_path: Path) -> None:
    for content in ('[{"a": 1, "b": null}, {"a": 2.5}]', '{"a": 1, "b": null}\n\n{"a": 2.5}\n'):
        assert [row.cells for row in read_table(write(tmp_path / "a.json", content))] == [
            {"a": 1, "b": None},
            {"a": 2.5},
        ]


def test_long_cells(tmp_path: Path) -> None:
    assert cells(write(tmp_path / "a.csv", "text\n" + "x" * 200_000)) == [["x" * 200_000]]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "text;label\na;1\n", r"a.csv: one column, 'text;label': its cells are separated by semicolons"),
        ("a.csv", "text\tlabel\na\t1\n", r"separated by tabs. Separate those of .csv by commas .*, of .tsv by tabs"),
        ("a.tsv", "text,label\na,1\n", r"separated by commas"),
        (
            "a.csv",
            "text,label\na,b,1\n",
            r"a.csv, line 2: 3 cells, and 2 columns \(text, label\). Put cells .* in quotes",
        ),
        ("a.csv", "text,label\na\n", r"line 2: 1 cells, and 2 columns"),
        ("a.tsv", "text\tlabel\na\tb\t1\n", r"line 2: 3 cells, and 2 columns .* Take out the tabs"),
        ("a.csv", 'text,label\n"a" b,1\n', r"line 2: not CSV .* Double each quote"),
        ("a.csv", 'text,label\n"a,1\nb,2\n', r"not CSV \(unexpected end of data\)"),
        ("a.csv", "x,x\n1,2\n", r"two columns are called 'x'. Rename one"),
        ("a.csv", "", r"an empty table. Give its columns a header line"),
        ("a.csv", "text\ncaf\xe9\n".encode("latin1"), r"a.csv, line 2, byte 8: not UTF-8 .* iconv -f latin1 -t UTF-8$"),
        ("a.csv", "\ufefftext\n".encode("utf-16-le"), r"not UTF-8 .* iconv -f UTF-16 -t UTF-8$"),
        ("a.csv", gzip.compress(b"text\na\n", mtime=0), r"a.csv is no text: .* Unpack it"),
        ("a.csv.gz", b"text\na\n", r"a.csv.gz: cannot be read \(Not a gzipped file"),
        ("a.csv.gz", gzip.compress(b"text\n" + bytes(range(32, 99)) * 99, mtime=0)[:-20], r"a.csv.gz: cannot be read"),
        ("a.csv", b"te\0xt\n", r"a.csv, line 1, byte 2: a zero byte. Remove those, e.g. tr -d"),
        ("a.csv", b"text\na\0b\n", r"a.csv, line 2, byte 6: a zero byte"),
        ("a.csv", "text\na\n".encode("utf-16-be"), r"not UTF-8 but UTF-16BE. Convert the file, e.g. iconv -f UTF-16BE"),
        ("a.csv", "text\na\n".encode("utf-32"), r"not UTF-8 but UTF-32. Convert the file"),
        ("a.csv", b"%PDF-1.4\n%\xe2\xe3\n\x00\x01\x02", r"a.csv is no text: .* Unpack it"),
        ("a.tsv", b"\x89PNG\r\n\x1a\n\0\0", r"a.tsv is no text: .* Unpack it"),
        ("a.json", '{"data": [', r"a.json, line 1: not JSON"),
        ("a.json", "[1]", r"a.json, entry 1: not a JSON object"),
    ],
)
def test_damage_is_named_with_a_remedy(tmp_path: Path, name: str, content: str | bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        list(read_table(write(tmp_path / name, content)))
    assert str(tmp_path / name) in str(error.value)


def test_a_link_without_a_target_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.txt").symlink_to("gone")
    with pytest.raises(ValueError, match=r"a.txt: no regular file"):
        list(read_lines(tmp_path / "a.txt"))


def test_json_lines_under_their_other_name(tmp_path: Path) -> None:
    assert cells(write(tmp_path / "a.ndjson", '{"a": "1"}\n{"a": "2"}\n')) == [["1"], ["2"]]


def test_a_table_of_several_splits_is_refused(tmp_path: Path) -> None:
    whole = write(tmp_path / "a.csv", "text,Split\na,train\nb,train\nc, TEST\n")
    with pytest.raises(ValueError, match=r"a.csv, line 4: the column 'Split' says test and train, .* into train.csv"):
        list(read_table(whole))
    assert len(cells(write(tmp_path / "b.csv", "text,split\na,train\nb,Train\n"))) == 2
    assert len(cells(write(tmp_path / "c.csv", "text,set\na,1\nb,train\nc,x\n"))) == 3
