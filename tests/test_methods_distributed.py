"""Two processes with half the batch each do what one process does with all of it, for every method. By existing."""

import os

import pytest
from rich.console import Console

from ssl_zoo.conformance import checks, subjects
from ssl_zoo.conformance.checks import Finding

pytestmark = pytest.mark.xdist_group("methods_distributed")  # its fixture is costly: one worker runs the file


@pytest.fixture(scope="module")
def findings() -> list[Finding]:
    """Of all methods from one pair of processes; a method that cannot be built fails in tests/test_methods_step.py."""
    examined = []
    for method in subjects.method_names():
        try:
            examined += subjects.subjects_of(method)
        except Exception as error:
            print(f"{method}: {error}")
    return checks.two_processes(examined)


@pytest.mark.skipif("PYTEST_XDIST_WORKER" not in os.environ, reason="one process")
def test_one_worker_runs_a_group(request: pytest.FixtureRequest) -> None:
    """pytest-xdist tells groups by the end of the name, which not every version of pytest leaves to it."""
    assert request.node.nodeid.endswith("@methods_distributed")


def test_the_table_of_differences(findings: list[Finding], capsys: pytest.CaptureFixture[str]) -> None:
    """Shown with -s; a sweep that saw nothing would prove nothing."""
    with capsys.disabled():
        Console(width=120).print(
            checks.findings_table([f._replace(failure="FAIL" * bool(f.failure)) for f in findings])
        )
    assert len({finding.subject for finding in findings}) >= len(subjects.method_names())


@pytest.mark.parametrize("method", subjects.method_names())
def test_two_processes_equal_one(method: str, findings: list[Finding]) -> None:
    mine = [finding for finding in findings if finding.subject.split("/")[0] == method]
    assert mine, f"{method} was not examined"
    assert not checks.failures(mine)
