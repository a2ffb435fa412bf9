"""Mistakes on the command line are named, with the nearest right name."""

from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from ssl_zoo.overrides import check_type, dotted_keys, nearest, quoted


def test_nearest_names() -> None:
    assert nearest("simclrx", ["byol", "simclr", "mlm"]) == ", did you mean simclr?"
    assert nearest("zzz", ["byol", "simclr"]) == "."


@pytest.mark.parametrize("text", ["The movie was [MASK].", "it's {a: b}, (c) \\ d", "a=b", "'quoted already'"])
def test_any_text_passes_hydras_grammar(text: str) -> None:
    (override,) = OverridesParser.create().parse_overrides([quoted(f"text={text}")])
    assert override.value() == text.strip("'")
    assert quoted("method=simclr") == "method=simclr"


def test_dotted_keys_hold_inner_ones_too() -> None:
    assert dotted_keys({"a": {"b": 1}, "c": [2]}) == {"a": {"b": 1}, "a.b": 1, "c": [2]}


@pytest.mark.parametrize(
    ("value", "default"),
    [("abc", 1), (1.5, 1), (True, 1), ("x", 0.1), ("yes", True), (1, "text"), (3, [1]), (1, {"a": 1})],
)
def test_wrong_types_are_named(value: Any, default: Any) -> None:
    with pytest.raises(ValueError, match=r"optimizer\.lr="):
        check_type("optimizer.lr", value, default)


@pytest.mark.parametrize(
    ("value", "default"),
    [(1, 0.5), (2, 1), (None, 1), ("x", None), ("${seed}", 1), ("t", "text"), ([1, 2], []), (True, False)],
)
def test_right_types_pass(value: Any, default: Any) -> None:
    check_type("optimizer.lr", value, default)


@pytest.mark.parametrize("given", ["backbone.pretrained=a.pt", "budget.epochs=0.5", "trainer.devices=[0]"])
def test_what_takes_several_kinds_passes(given: str) -> None:
    (override,) = OverridesParser.create().parse_overrides([given])
    check_type(override.key_or_group, override.value(), {"backbone.pretrained": False}.get(override.key_or_group, 1))
