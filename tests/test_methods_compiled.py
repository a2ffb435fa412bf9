"""torch.compile changes nothing, for one method of each family; and the compiler that users have, for one of them."""

import shutil

import pytest

from ssl_zoo.conformance import checks, subjects

FAMILIES = ("simclr", "byol", "swav", "dino", "vicreg", "mae", "mlm")


@pytest.mark.parametrize("method", sorted(set(FAMILIES) & set(subjects.method_names())))
def test_compiled_equals_eager(method: str) -> None:
    assert not checks.failures(checks.compiled(subjects.subjects_of(method)[0]))


@pytest.mark.slow
@pytest.mark.skipif(not any(map(shutil.which, ("c++", "g++", "clang++"))), reason="torch.compile needs a C++ compiler")
def test_compiled_by_inductor_equals_eager() -> None:
    assert not checks.failures(checks.compiled(subjects.subjects_of("simclr")[0], backend="inductor"))
