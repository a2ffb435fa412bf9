from pathlib import Path

import pytest

from benchmarks.label_free import completed_runs, devised_rule, recorded_runs, rows
from ssl_zoo.report.results import empty_results, write_results


def test_runs_of_the_record_and_of_folders_are_found(tmp_path: Path) -> None:
    assert sum(map(len, recorded_runs().values())) >= 100
    names = {"method": "byol", "backbone": "resnet18", "data": "digits", "budget": {"kind": "steps", "value": 1}}
    metrics = {"linear/top1": 0.5}
    for name, status in (("a", "completed"), ("b", "running")):
        (tmp_path / name).mkdir()
        write_results(tmp_path / name, empty_results(status, **names | {"metrics": metrics}))
    assert completed_runs([tmp_path]) == {"resnet18 on digits": [("byol", metrics)]}


def test_a_score_that_orders_all_methods_the_wrong_way_is_turned_by_the_rule() -> None:
    runs = [(f"m{i}", {"rankme": float(-i), "linear/top1": i / 10}) for i in range(8)]
    rule = devised_rule(runs)
    assert rule is not None
    assert rule[0] == 0
    assert rule[1] > 0.1
    assert devised_rule(runs[:5]) is None
    assert devised_rule([(name, {"linear/top1": m["linear/top1"]}) for name, m in runs]) is None
    (row,) = rows(runs)
    assert row == ["rankme", "-1.00 (8)", "", "70.0", "35.0"]


def test_a_score_without_meaning_does_no_better_than_chance() -> None:
    runs = [(f"m{i}", {"rankme": float((i * 7) % 5), "linear/top1": i / 30}) for i in range(30)]
    rule = devised_rule(runs)
    assert rule is not None
    assert rule[0] == pytest.approx(rule[1], abs=0.2)
