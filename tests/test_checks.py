"""Bad values are named by key, value and remedy."""

import pytest

from ssl_zoo import checks


def test_bad_values_are_named() -> None:
    with pytest.raises(ValueError, match=r"method\.temperature=-1 must be"):
        checks.positive(temperature=-1)
    with pytest.raises(ValueError, match=r"method\.mask_ratio=1\.0 must lie"):
        checks.fraction(mask_ratio=1.0)
    with pytest.raises(ValueError, match=r"method\.freeze_until=1\.5 is a share"):
        checks.share(freeze_until=1.5)
    checks.share(start=0, end=1)


def test_a_choice_is_one_of_its_options() -> None:
    checks.choice(("joint", "separate"), views_per_batch_norm="joint")
    with pytest.raises(ValueError, match=r"method\.views_per_batch_norm=both: give one of joint, separate"):
        checks.choice(("joint", "separate"), views_per_batch_norm="both")
