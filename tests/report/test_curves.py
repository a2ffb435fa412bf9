"""Curves of runs with different seeds: their mean and range at the points that all of them have."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ssl_zoo.report.curves import average_curves, read_curves


def make_run(folder: Path, rows: list[dict[str, Any]], **metrics: float | None) -> dict[str, Any]:
    folder.mkdir()
    (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    known = {key.replace("_", "/"): value for key, value in metrics.items()}
    return {"folder": folder, "budget": {"steps": 10}, "metrics": known}


def test_mean_and_range_are_numpys(tmp_path: Path) -> None:
    values = np.random.default_rng(0).random((3, 5))
    runs = []
    for number, (first, *inside, last) in enumerate(values.tolist()):
        rows = [{"step": step, "eval/knn": value} for step, value in zip((2, 5, 8), inside, strict=True)]
        runs.append(make_run(tmp_path / str(number), rows, init_knn=first, knn=last))
    (points,) = average_curves(runs).values()
    assert [point.share for point in points] == [0, 0.2, 0.5, 0.8, 1]
    found = np.array([(point.mean, point.low, point.high) for point in points])
    np.testing.assert_allclose(found, np.stack([values.mean(0), values.min(0), values.max(0)], 1), atol=1e-12)
    assert {point.n for point in points} == {3}


def test_only_points_that_all_runs_have(tmp_path: Path) -> None:
    rows = [{"step": step, "eval/knn": 0.1 * step, "train/loss": 3.0} for step in (2, 5, 8)]
    whole, part = make_run(tmp_path / "0", rows, knn=0.9), make_run(tmp_path / "1", rows[1:], knn=0.7)
    (points,) = average_curves([whole, part]).values()
    assert [point.share for point in points] == [0.5, 0.8, 1]
    assert points[-1].mean == pytest.approx(0.8)


def test_what_cannot_be_drawn_is_left_out(tmp_path: Path) -> None:
    rows = [{"step": 5, "eval/knn": None}, {"step": 10, "eval/linear": 0.5}, {"step": 5, "eval/rankme": 3.0}]
    run = make_run(tmp_path / "0", rows, rankme=None)
    assert read_curves(run) == {"rankme": {0.5: 3.0}}  # not finite; the end itself; no other point
    assert average_curves([run]) == {}


@pytest.mark.parametrize("content", ["[1]\n", "{\n", '{"step": "a"}\n', '{"step": 5, "eval/knn": "x"}\n', "\n"])
def test_a_damaged_file_has_no_curve(content: str, tmp_path: Path) -> None:
    run = make_run(tmp_path / "0", [])
    (tmp_path / "0" / "metrics.jsonl").write_text(content)
    assert read_curves(run) == {}
    (tmp_path / "0" / "metrics.jsonl").unlink()
    assert read_curves(run) == {}
