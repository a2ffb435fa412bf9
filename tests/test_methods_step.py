"""One step of every method: in float32, in bf16, with other views and lengths; float32 losses; labels unused."""

import pytest

from ssl_zoo.conformance import checks, subjects
from ssl_zoo.conformance.lengths import lengths
from ssl_zoo.conformance.products import product_precision


@pytest.mark.parametrize("method", subjects.method_names())
def test_a_step(method: str) -> None:
    findings = [finding for subject in subjects.subjects_of(method) for finding in checks.step(subject)]
    assert not checks.failures(findings)


@pytest.mark.parametrize("method", subjects.method_names())
def test_short_ragged_and_equal_rows(method: str) -> None:
    findings = [finding for subject in subjects.subjects_of(method) for finding in lengths(subject)]
    assert not checks.failures(findings)


@pytest.mark.parametrize("method", subjects.method_names())
def test_labels_are_unused(method: str) -> None:
    findings = [finding for subject in subjects.subjects_of(method) for finding in checks.labels(subject)]
    assert not checks.failures(findings)


@pytest.mark.parametrize("method", subjects.method_names())
def test_losses_are_computed_in_float32_under_autocast(method: str) -> None:
    findings = [finding for subject in subjects.subjects_of(method) for finding in product_precision(subject)]
    assert not checks.failures(findings)
