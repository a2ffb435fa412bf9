"""Folders of runs in; Markdown and CSV out; clear words when there is nothing to compare."""

import csv
import io
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
    assert {line.count("|") for line in parsed[: parsed.index("| item | answer | NeurIPS | ACL |")]} == {7}


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
