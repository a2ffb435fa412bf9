"""What a part's signature does not take is refused by key, in the words of YAML."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import pytest

from ssl_zoo import settings


class Part:
    def __init__(self, size: int, rate: float, path: str, names: Sequence[str], on: bool | None = None, **more: Any):
        """Never called here."""


GOOD = {"_target_": f"{__name__}.Part", "size": 1, "rate": 0.5, "path": "a", "names": ["b"]}


@pytest.mark.parametrize(
    ("hint", "value"),
    [
        (int, 3),
        (float, 3),
        (float, 0.5),
        (str, ""),
        (bool, True),
        (int | None, None),
        (bool | str, "a.pt"),
        (Literal["cpu", "gpu"], "cpu"),
        (Sequence[float], [1, 0.5]),
        (tuple[float, float], [0.9, 0.98]),
        (Mapping[str, Any], {"a": None}),
        (Callable[[float], float], {"_target_": "any"}),
        (Any, None),
        (int, "${facts.image_size}"),
    ],
)
def test_what_a_type_takes(hint: Any, value: Any) -> None:
    settings.check_setting("key", value, hint)


@pytest.mark.parametrize(
    ("hint", "value", "said"),
    [
        (int, None, "key=null must be a whole number"),
        (int, 0.5, "key=0.5 must be a whole number"),
        (int, True, "key=True must be a whole number"),
        (float, float("nan"), "key=nan must be a finite number"),
        (float | None, float("inf"), "key=inf must be a finite number or null"),
        (bool | None, "maybe", "key=maybe must be true or false or null"),
        (str, 3, "key=3 must be text"),
        (Literal["cpu", "gpu"], "tpu", "key=tpu must be cpu or gpu"),
        (Sequence[float], "abc", "key=abc must be a list of which each is a finite number"),
        (Sequence[float], [1, "a"], "must be a list of which each is a finite number"),
        (tuple[float, float], [0.9], r"key=\[0.9\] must be a list of 2"),
        (Mapping[str, Any], None, "key=null must be a mapping"),
        (Any, float("nan"), "key=nan must be a finite number"),
    ],
)
def test_what_it_does_not_take_is_named(hint: Any, value: Any, said: str) -> None:
    with pytest.raises(ValueError, match=f"{said}$"):
        settings.check_setting("key", value, hint)


def test_a_part_is_checked_by_its_signature_however_deep() -> None:
    settings.check_part("a", {"parts": [GOOD, {**GOOD, "anything": None}]})
    with pytest.raises(ValueError, match=r"a\.parts\.1\.size=null must be a whole number"):
        settings.check_part("a", {"parts": [GOOD, {**GOOD, "size": None}]})


def test_smallest_values() -> None:
    settings.check_at_least("key", 1, 1)
    settings.check_at_least("key", None, 1)
    with pytest.raises(ValueError, match="key=0 must be above 0"):
        settings.check_at_least("key", 0, 0, exclusive=True)
    with pytest.raises(ValueError, match="key=-2 must be at least 1"):
        settings.check_at_least("key", -2, 1)
