"""One step of every method, in float32, in bf16, with other views and rows of other lengths; and labels unused."""

import pytest

from ssl_zoo.conformance import checks, subjects
from ssl_zoo.conformance.lengths import lengths


@pytest.mark.parametrize("method", subjects.names())
def test_a_step(method: str) -> None:
    findings = [finding for subject in subjects.of(method) for finding in checks.step(subject)]
    assert not checks.failures(findings)


@pytest.mark.parametrize("method", subjects.names())
def test_short_ragged_and_equal_rows(method: str) -> None:
    findings = [finding for subject in subjects.of(method) for finding in lengths(subject)]
    assert not checks.failures(findings)


@pytest.mark.parametrize("method", subjects.names())
def test_labels_are_unused(method: str) -> None:
    findings = [finding for subject in subjects.of(method) for finding in checks.labels(subject)]
    assert not checks.failures(findings)
