"""What is found in text files and tables, and what is picked for them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ssl_zoo.data.picks import Findings
from ssl_zoo.data.text import survey as module
from ssl_zoo.data.text.survey import survey_texts
from tests.conftest import make_images, write_parquet
from tests.data.pictures import write

OPEN: dict[str, Any] = dict.fromkeys(("text_column", "label_column", "batch_size"), "auto")
OPEN |= {"row_length": 16, "max_length": 32}


def surveyed(path: Path, windows: bool = True, **settings: Any) -> tuple[Findings, dict[str, str], dict[str, Any]]:
    found = survey_texts({**OPEN, "path": str(path), **settings}, windows)
    return found, dict(found.lines), {pick.key: pick.value for pick in found.picks}


def texts(folder: Path, count: int, first: int = 0) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for k in range(first, first + count):
        (folder / f"{k}.txt").write_text(f"document number {k} of some length")


def test_a_folder_of_text(tmp_path: Path) -> None:
    texts(tmp_path, 40)
    (tmp_path / "1.txt").write_text("document number 0 of some length")
    found, lines, picks = surveyed(tmp_path)
    assert lines["documents"] == "40, of which about 8 are held out (data.heldout=0: none)"
    assert lines["length"].startswith("33 characters (median), 33 (maximum)")
    assert lines["classes"].startswith("no labels")
    assert (lines["duplicates"], lines["encoding"]) == ("1 exact", "UTF-8")
    assert picks == {"data.text_column": "text", "data.label_column": None, "data.batch_size": 16}
    assert (found.num_train, found.is_exact) == (32, True)


def test_splits_and_classes_and_text_in_both(tmp_path: Path) -> None:
    for split, first in (("train", 0), ("test", 100)):
        for k, name in enumerate(("neg", "pos")):
            texts(tmp_path / split / name, 10, first + 20 * k)
    (tmp_path / "test" / "pos" / "120.txt").write_text("document number 0 of some length")
    found, lines, _ = surveyed(tmp_path)
    assert lines["documents"] == "20 to train, 20 to test (split test)"
    assert lines["classes"] == "2 classes (neg 10, pos 10)"
    assert "Warning: 1 test documents are training documents too" in lines["duplicates"]
    assert found.num_train == 20
    few = survey_texts({**OPEN, "path": str(tmp_path), "labels_per_class": 2}, False, uses_labels=True)
    assert few.num_train == 4


@pytest.mark.parametrize(
    ("rows", "text", "label"),
    [
        ([{"text": f"a text {k}", "label": k % 2} for k in range(20)], "text", "label"),
        (
            [{"id": str(k), "words": f"quite a long text {k}", "Class": "ab"[k % 2]} for k in range(20)],
            "words",
            "Class",
        ),
        ([{"review": f"a text {k}", "stars": k % 2} for k in range(20)], "review", None),
        ([{"text": f"a text {k}", "label": k} for k in range(20)], "text", None),
        ([{"text": f"a text {k}", "label": k / 7} for k in range(20)], "text", None),
    ],
)
def test_columns(rows: list[dict[str, Any]], text: str, label: str | None, tmp_path: Path) -> None:
    path = tmp_path / "table.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    _, _, picks = surveyed(path)
    assert (picks["data.text_column"], picks["data.label_column"]) == (text, label)
    given = surveyed(path, text_column=text, label_column=None)[2]
    assert set(given) == {"data.batch_size"}


def test_columns_that_could_both_be_the_text_are_named(tmp_path: Path) -> None:
    (tmp_path / "pairs.csv").write_text("one,two\n" + "a text,a text\n" * 5)
    with pytest.raises(ValueError, match=r"data\.text_column=auto: .* does not tell.*Give one of one, two"):
        surveyed(tmp_path / "pairs.csv")


def test_files_in_another_encoding_are_counted(tmp_path: Path) -> None:
    texts(tmp_path, 6)
    for name in ("2.txt", "4.txt"):
        (tmp_path / name).write_bytes("Größe".encode("latin1"))
    found, lines, _ = surveyed(tmp_path)
    assert lines["encoding"].startswith(f"2 that are no UTF-8 text, such as {tmp_path / '2.txt'}, line 1")
    assert "iconv" in found.problems[0]


def test_much_is_sampled_and_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts(tmp_path, 30)
    monkeypatch.setattr(module, "DOCUMENTS", 10)
    found, lines, _ = surveyed(tmp_path)
    assert lines["documents"].startswith("more than 10, of which")
    assert "10 of each split were read" in lines["documents"]
    assert not found.is_exact


def test_packed_rows_are_never_fewer_than_the_batch(tmp_path: Path) -> None:
    texts(tmp_path, 40)
    found, _, picks = surveyed(tmp_path, windows=False)
    assert found.num_train == 40 * 33 * 0.8 // 4 // 16
    assert picks["data.batch_size"] == 8


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda folder: write(folder, 3), r"It holds 3 \.png.*for images give data=folder"),
        (lambda folder: None, "holds no files"),
        (lambda folder: texts(folder, 1), "1 document, of which none can be held out.*data.documents=line"),
        (lambda folder: (folder / "a.txt").write_text(" \n"), "holds no text"),
    ],
)
def test_nothing_to_learn_from(make: Any, said: str, tmp_path: Path) -> None:
    make(tmp_path)
    with pytest.raises(ValueError, match=said):
        surveyed(tmp_path)


def test_a_table_of_images_is_no_text(tmp_path: Path) -> None:
    write_parquet(tmp_path / "images", {"train": make_images(10, np.random.default_rng(0))})
    with pytest.raises(ValueError, match=r"its column img holds images.*data=folder"):
        surveyed(tmp_path / "images")
