"""What is recorded and said of a run that does not complete; the ends themselves are in test_run.py."""

import errno

import pytest
from hydra.errors import InstantiationException

from ssl_zoo import ending


@pytest.mark.parametrize(
    ("inner", "kind"),
    [(TypeError("got an unexpected keyword argument 'x'"), ValueError), (OSError(errno.EIO, "broken"), OSError)],
)
def test_the_cause_is_what_the_part_raised(inner: Exception, kind: type[Exception]) -> None:
    outer = InstantiationException("Error in call to target\nfull_key: method")
    outer.__cause__ = inner
    found = ending.root_cause(outer)
    assert isinstance(found, kind)
    assert str(found).startswith("method: ") == (kind is ValueError)


def test_other_errors_are_their_own_cause() -> None:
    error = RuntimeError("boom")
    assert ending.root_cause(error) is error
