"""Folders of runs in; a printed table, Markdown, CSV and a page out; clear words when there is nothing to compare."""

import copy
import csv
import io
import json
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from ssl_zoo.report import results, tables
from ssl_zoo.report.comparison import compare


def save(folder: Path, method: str, seed: int, **changes: Any) -> None:
    folder.mkdir(parents=True)
    told: dict[str, Any] = {"method": method, "backbone": "resnet18", "data": "digits", "seed": seed}
    told["budget"] = {"kind": "epochs", "value": 40, "seconds": 1234.5}
    told["speed"] = {"examples_per_second": 971.0}
    told["metrics"] = {"knn/top1": 0.8 + seed / 100, "init/knn/top1": 0.3, "rankme": 40.0 + seed}
    results.write_results(folder, results.empty_results("completed", **told) | changes)


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """Two methods, three seeds; one of them killed."""
    folder = tmp_path / "sweep"
    for number, (method, seed) in enumerate((method, seed) for method in ("simclr", "byol") for seed in range(3)):
        error = {"type": "killed by SIGKILL", "message": "killed by SIGKILL | <b>"}
        failed = {"status": "failed", "error": error, "metrics": {}} if (method, seed) == ("byol", 1) else {}
        save(folder / str(number), method, seed, **failed)
    return folder


class Tags(HTMLParser):
    """Checks that every tag is closed, and keeps the text of the cells."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.cells: list[str] = []
        self.images: list[str | None] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "img":
            self.images.append(dict(attrs)["src"])
        elif tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("td", "th"):
            self.cells.append(data)


def test_load_finds_each_run_once_however_deep(sweep: Path) -> None:
    runs = tables.load_runs([sweep.parent, sweep / "0", sweep / "1" / "results.json"])
    assert sorted(run["folder"] for run in runs) == [sweep / str(number) for number in range(6)]


def test_load_keeps_an_unreadable_run_as_failed(sweep: Path) -> None:
    (sweep / "2" / "results.json").write_text("{")
    (run,) = (run for run in tables.load_runs([sweep]) if run["folder"] == sweep / "2")
    assert run["status"] == "failed"
    assert run["error"]["message"].startswith(str(sweep / "2" / "results.json"))


def test_load_names_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"none: no such folder"):
        tables.load_runs([tmp_path / "none"])
    with pytest.raises(ValueError, match=r"no results\.json here or below"):
        tables.load_runs([tmp_path])


def test_markdown(sweep: Path) -> None:
    text = tables.to_markdown(compare(tables.load_runs([sweep])))
    assert "| simclr | 81.0 (78.4 to 83.4) | 30.0 ± 0.0 | 3 | 1,234 | 971 |" in text
    assert "| byol | 81.0 (65.1 to 90.7) | 30.0 ± 0.0 | 2 | 1,234 | 971 |" in text
    assert "- simclr has the highest knn/top1, 81.0 (78.4 to 83.4) %." in text
    assert "- byol and simclr (0.0 points apart) cannot be tested: the difference is the same in every seed" in text
    assert "## Not completed" in text
    assert r"killed by SIGKILL \| &lt;b>" in text
    parsed = [line.replace(r"\|", "") for line in text.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in parsed} == {7}  # both tables happen to be six cells wide


def test_csv_holds_plain_numbers(sweep: Path) -> None:
    rows = {
        row["method"]: row for row in csv.DictReader(io.StringIO(tables.to_csv(compare(tables.load_runs([sweep])))))
    }
    simclr = rows["simclr"]
    assert float(simclr["knn/top1"]) == pytest.approx(0.81)
    assert float(simclr["knn/top1 ci95"]) == pytest.approx((0.83361 - 0.78391) / 2, abs=1e-5)
    ends = [float(simclr[f"knn/top1 {end}"]) for end in ("low", "high")]
    assert ends == pytest.approx([0.78391, 0.83361], abs=1e-5)  # on the logit scale
    assert (simclr["seeds"], simclr["n"], simclr["budget"]) == ("0 1 2", "3", "40 epochs")
    assert rows["byol"]["knn/top1 n"] == "2"
    assert float(simclr["rankme"]) == 41.0
    assert simclr["difference"] is None  # the best row has no other to be compared with
    assert (float(rows["byol"]["difference"]), rows["byol"]["difference p"]) == (pytest.approx(0, abs=1e-9), "")


def test_html_is_whole_and_needs_no_other_file(sweep: Path) -> None:
    page = tables.to_html(compare(tables.load_runs([sweep])))
    tags = Tags(page)
    assert tags.open == []
    assert "81.0 (78.4 to 83.4)" in tags.cells
    assert "killed by SIGKILL | <b>" in "".join(tags.cells)  # escaped, so read as text
    assert len(tags.images) == 1  # knn/top1; rankme is in the table of all metrics
    assert "41.0 ± 2.5" in tags.cells
    assert all(image is not None and image.startswith("data:image/svg+xml;base64,") for image in tags.images)
    assert page.count("src=") == 1
    assert "href=" not in page


VALUES = [None, True, -1, 1e308, 10**400, float("nan"), float("inf"), "", "x", [], [1], {}, {"a": {"b": []}}]
ODD = "\x1b[31m=cmd()|'[x](http://e.com)<script>$a_$\n[/red]\udcff"


def mutations(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """The place and the value of each change: every field of other kinds, left out (`...`), and with a foreign key."""
    for key, item in value.items():
        place = (*path, key)
        yield place, ...
        yield from ((place, other) for other in VALUES)
        if isinstance(item, dict):
            yield (*place, ODD), 1.0
            yield from mutations(item, place)


def test_no_results_file_ends_the_report(tmp_path: Path) -> None:
    save(tmp_path / "0", "simclr", 0, environment={"device": "cpu"}, overrides=["seed=0"], config={"a": {"b": 1}})
    save(tmp_path / "good", "byol", 0)
    file = tmp_path / "0" / "results.json"
    whole = json.loads(file.read_text())
    changes = list(mutations(whole))
    assert len(changes) > 300
    for place, value in changes:
        changed = copy.deepcopy(whole)
        inner = changed
        for key in place[:-1]:
            inner = inner[key]
        if value is ...:
            del inner[place[-1]]
        else:
            inner[place[-1]] = value
        file.write_text(json.dumps(changed))
        comparison = compare(tables.load_runs([tmp_path]))
        assert any(row.names["method"] == "byol" for row in comparison.rows), (place, value)
        tables.to_markdown(comparison)
        tables.to_csv(comparison)
        tables.print_tables(comparison)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"[" * 100_000, b"{}", b"NaN", None], ids=str)
def test_a_file_that_is_no_json_is_a_failed_run(content: bytes | None, sweep: Path) -> None:
    file = sweep / "2" / "results.json"
    file.unlink()
    if content is None:
        file.mkdir()
    else:
        file.write_bytes(content)
    (run,) = (run for run in tables.load_runs([sweep]) if run["folder"] == sweep / "2")
    assert (run["status"], run["error"]["type"]) == ("failed", "unreadable")


def test_a_name_is_never_markup(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(tmp_path / "0", ODD, 0, experiment=f"={ODD}", environment={"device": ODD})
    save(tmp_path / "1", "simclr", 0, environment={"device": "cpu"})
    error = {"type": ODD, "message": ODD}
    save(tmp_path / "2", ODD, 0, status="failed", error=error)
    tables.write_report(tables.load_runs([tmp_path]), tmp_path)
    everything = capsys.readouterr().out.encode() + b"".join(file.read_bytes() for file in tmp_path.glob("report.*"))
    assert b"\x1b" not in everything
    assert b"<script>" not in (tmp_path / "report.html").read_bytes() + (tmp_path / "report.md").read_bytes()
    assert "[x](http" not in (tmp_path / "report.md").read_text()
    cells = [cell for row in csv.reader(io.StringIO((tmp_path / "report.csv").read_text())) for cell in row]
    assert not [cell for cell in cells if cell.startswith("=")]


def test_every_format_serves_when_all_failed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    error = {"type": "timed out", "message": ""}
    save(tmp_path / "0", "simclr", 0, status="failed", error=error, metrics={})
    tables.write_report(tables.load_runs([tmp_path]), tmp_path)
    assert "No run completed." in capsys.readouterr().out
    assert "timed out" in (tmp_path / "report.md").read_text()
    assert "timed out" in (tmp_path / "report.html").read_text()
    assert len((tmp_path / "report.csv").read_text().splitlines()) == 1


def test_command_line_prints_and_writes(sweep: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tables.main([str(sweep)]) == 0
    printed = capsys.readouterr().out
    assert "simclr has the highest knn/top1, 81.0 (78.4 to 83.4) %." in printed
    assert "killed by SIGKILL" in printed
    assert "Test metrics are of the last epoch." in printed
    assert tables.main([str(sweep / "0"), str(sweep / "1"), "--out", str(tmp_path / "new" / "place")]) == 0
    assert tables.main([str(sweep), "--baseline", "none"]) == 2
    assert "error: baseline=none: no row is called so. There are: simclr, byol" in capsys.readouterr().err
    for folder in (sweep, tmp_path / "new" / "place"):
        assert {file.name for file in folder.glob("report.*")} == {"report.md", "report.csv", "report.html"}
