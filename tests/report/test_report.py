"""The command and the call: files in every format, whatever a record holds; clear words for a wrong argument."""

import copy
import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ssl_zoo.report import report, tables
from tests.report.records import save_run, save_sweep

NAMES = {"report.html", "report.md", "report.tex", "report.csv"}
VALUES = [None, True, -1, 1e308, 10**400, float("nan"), float("inf"), "", "x", [], [1], {}, {"a": {"b": []}}]
ODD = "\x1b[31m=cmd()|'[x](http://e.com)<script>$a_$\n[/red]\udcff"


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sweep")
    save_sweep(folder, 3)
    return folder


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
    save_run(tmp_path / "good", "byol", 0, metrics={"linear/top1": 0.5, "init/linear/top1": 0.3, "few/1/linear": 0.4})
    whole = json.loads((tmp_path / "good" / "results.json").read_text())
    changes = list(mutations(whole))[::3]  # a third of the values at each place, others at the next
    assert len(changes) > 200
    for number, (place, value) in enumerate(changes):
        changed = copy.deepcopy(whole) | {"method": "simclr"}
        inner = changed
        for key in place[:-1]:
            inner = inner[key]
        if value is ...:
            inner.pop(place[-1])
        else:
            inner[place[-1]] = value
        folder = tmp_path / str(number % 120)
        folder.mkdir(exist_ok=True)
        (folder / "results.json").write_text(json.dumps(changed))
        if folder.name == "119" or number == len(changes) - 1:  # many at once, as a page takes its time
            named = "byol" if folder.name == "119" else None
            found = report.compare_folders(tmp_path, named)
            assert any(row.names["method"] == "byol" for row in found.comparison.rows)
            found.write(tmp_path)
            found._repr_html_()
    tables.print_tables(found.comparison)


def test_a_name_is_never_markup(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_run(tmp_path / "0", "byol", 0, method=ODD, experiment=f"={ODD}", environment={"device": ODD}, overrides=[ODD])
    save_run(tmp_path / "1", "simclr", 0, environment={"device": "cpu"})
    save_run(tmp_path / "2", "byol", 0, method=ODD, status="failed", error={"type": ODD, "message": ODD})
    report.write_report(report.compare_folders(tmp_path), tmp_path)
    everything = capsys.readouterr().out.encode() + b"".join(file.read_bytes() for file in tmp_path.glob("report.*"))
    assert b"\x1b" not in everything
    page = (tmp_path / "report.html").read_text()
    assert "'[x](http://e.com)<script>" not in page + (tmp_path / "report.md").read_text()
    assert page.count("<script") == 4, "those of the template"
    assert "[x](http" not in (tmp_path / "report.md").read_text()
    cells = [cell for row in csv.reader(io.StringIO((tmp_path / "report.csv").read_text())) for cell in row]
    assert not [cell for cell in cells if cell.startswith("=")]


def test_every_format_serves_when_all_failed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_run(tmp_path / "0", "simclr", 0, status="failed", error={"type": "timed out", "message": ""}, metrics={})
    report.write_report(report.compare_folders(tmp_path), tmp_path)
    assert "No run completed." in capsys.readouterr().out
    for name in ("report.md", "report.html"):
        assert "timed out" in (tmp_path / name).read_text()
    assert "No run completed." in (tmp_path / "report.tex").read_text()
    assert len((tmp_path / "report.csv").read_text().splitlines()) == 1


def test_command_line_prints_and_writes(sweep: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "new" / "place"
    assert report.main([str(sweep), "--baseline", "simclr", "--axis", "seconds", "--out", str(out), "--figures"]) == 0
    printed = capsys.readouterr().out
    assert "CUDA out of memory" in printed
    assert "Test metrics are of the last epoch." in printed
    assert {file.name for file in out.glob("report.*")} == NAMES
    drawn = sorted(file.name for file in out.glob("*.pdf"))
    assert drawn == [
        f"report-{name}.pdf"
        for name in ("accuracy", "cka", "classes", "compute", "curves", "labels", "map-1", "map-2", "map-3")
    ]
    assert all(file.read_bytes().startswith(b"%PDF") for file in out.glob("*.pdf"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--axis", "labels"], "axis=labels: no run has accuracies by number of labels"),
        (["--axis", "flops"], "axis=flops: no run has recorded its training FLOPs. Recorded: seconds"),
        (["--baseline", "mocov9"], "mocov9"),
    ],
)
def test_a_wrong_argument_is_named(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, method in enumerate(("simclr", "byol")):
        budget = {"kind": "steps", "value": 10, "seconds": 1.5}
        save_run(tmp_path / str(number), method, 0, budget=budget, metrics={"linear/top1": 0.5})
    assert report.main([str(tmp_path), *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.glob("report*"))


def test_python_has_the_same(sweep: Path, tmp_path: Path) -> None:
    import ssl_zoo

    found = ssl_zoo.compare([sweep], baseline="simclr", axis="labels")
    assert found.write(tmp_path) == tmp_path / "report.html"
    assert {file.name for file in tmp_path.iterdir()} == NAMES | {"report-classes.csv", "report-cka.csv"}
    assert found.comparison.baseline is not None
    assert found.comparison.baseline.names["method"] == "simclr"
    shown = found._repr_html_()
    assert all(cell in shown for line in found.table for cell in line)
    assert "<script" not in shown
    assert shown.count("<li>") == len(found.verdicts) > 0
    with pytest.raises(ValueError, match="axis=watts: no such axis"):
        ssl_zoo.compare(sweep, axis="watts")
