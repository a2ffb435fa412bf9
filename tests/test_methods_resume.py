"""Every method goes on from a checkpoint as if it had never stopped, bit for bit. By existing."""

import pytest

from ssl_zoo.conformance import checks, subjects


@pytest.mark.parametrize("method", subjects.method_names())
def test_resume(method: str) -> None:
    findings = [finding for subject in subjects.subjects_of(method) for finding in checks.resume(subject)]
    assert not checks.failures(findings)
