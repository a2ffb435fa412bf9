"""The end of a job of Slurm that could not record it."""

from pathlib import Path

import pytest

from ssl_zoo.report import results
from ssl_zoo.sweep.record import QUEUED, record_end


@pytest.mark.parametrize(("code", "ending"), [(1, "exit code 1"), (137, "killed by SIGKILL"), (255, "exit code 255")])
@pytest.mark.parametrize("before", [{"status": "running"}, {"status": "interrupted", "error": QUEUED}])
def test_a_job_that_recorded_nothing_failed(tmp_path: Path, before: dict, code: int, ending: str) -> None:
    results.write_results(tmp_path, results.empty_results(**before, seed=3))
    record_end(tmp_path, code)
    record = results.read_results(tmp_path)
    assert (record["status"], record["seed"], record["error"]["type"]) == ("failed", 3, ending)


def test_what_a_job_recorded_stays(tmp_path: Path) -> None:
    error = {"type": "ValueError", "message": "temperature"}
    for record in (
        results.empty_results("failed", error=error),
        results.empty_results("interrupted"),
        results.empty_results("completed", method="m", data="d", budget={"kind": "epochs", "value": 1}),
    ):
        results.write_results(tmp_path, record)
        record_end(tmp_path, 1)
        assert results.read_results(tmp_path) == record
