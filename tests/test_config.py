"""Mistakes on the command line are named, with the nearest right name."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from ssl_zoo.config import check_key, check_type, dotted_keys, nearest, quoted


def test_nearest_names() -> None:
    assert nearest("simclrx", ["byol", "simclr", "mlm"]) == ", did you mean simclr?"
    assert nearest("zzz", ["byol", "simclr"]) == "."


TEXTS = ["The movie was [MASK].", "it's {a: b}, (c) \\ d", "a=b", "ends in \\", "a\\'b\\\\'", "null", ""]
PATHS = [
    "/d/my photos (1)", "/d/a=b", "/d/x,y", "/d/50%", "/d/größe_猫", "/d/it's", "/d/a#b", "/d/$HOME", "/d/[new]",
    "/d/a&b;c", "/d/a+b@c", r"C:\Users\me\photos", "s3://bucket/photos", "/runs/epoch=3-step=100.ckpt", "123",
    "2024-01-01", "1e5", ".", "photos/", "lr=0.1", "my run", "a:b",
]  # fmt: skip


def parsed(argument: str) -> Any:
    (override,) = OverridesParser.create().parse_overrides([argument])
    return override.value()


@pytest.mark.parametrize("text", TEXTS)
def test_any_text_passes_hydras_grammar(text: str) -> None:
    assert parsed(quoted(f"text={text}")) == text


@pytest.mark.parametrize("key", ["data.path", "data.root", "checkpoint", "backbone.pretrained", "name"])
@pytest.mark.parametrize("path", PATHS)
def test_any_path_passes_hydras_grammar(key: str, path: str) -> None:
    assert parsed(quoted(f"{key}={path}")) == path


def test_a_home_folder_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert parsed(quoted("data.path=~/photos")) == "/home/me/photos"
    assert parsed(quoted("text=~/photos")) == "~/photos"


@pytest.mark.parametrize(
    "argument",
    ["method=simclr", "data.path='a b'", "text='it'", "checkpoint=null", "backbone.pretrained=true", "hydra.run.dir="],
)
def test_what_is_no_text_or_quoted_already_stays(argument: str) -> None:
    assert quoted(argument) == argument


def test_several_values_of_a_sweep_stay() -> None:
    assert quoted("data.path=a,b", is_sweep=True) == "data.path=a,b"
    assert quoted("checkpoint=glob(*)", is_sweep=True) == "checkpoint=glob(*)"
    assert quoted("data.path=a b", is_sweep=True) == "data.path='a b'"


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("seeds", 1, "no such key, did you mean seed"),
        ("method._target_", "os.system", "which code runs"),
        ("method.head", {"inner": {"_target_": "os.system"}}, "which code runs"),
        ("facts.image_size", 3, "filled in by the run"),
    ],
)
def test_a_key_that_no_value_can_serve(key: str, value: Any, said: str) -> None:
    default = {"seed": 0, "method": {}, "facts": None}
    check_key("method.new", 5, default)  # for the method to judge
    with pytest.raises(ValueError, match=f"^{key}: .*{said}"):
        check_key(key, value, default)


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


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["data=folder"], "data.path must be given"),
        (["data=folder", "data.path=x", "data.batch_size=0"], "data.batch_size=0: give a whole number from 1"),
        (["method=simclrr"], "did you mean simclr"),
        (["seed=-1"], "seed=-1"),
    ],
)
def test_a_mistake_of_the_command_line_is_named_before_torch_is_imported(
    arguments: list[str], said: str, tmp_path: Path
) -> None:
    code = (
        "import atexit, sys; from ssl_zoo import run\n"
        "atexit.register(lambda: print(sorted({'torch', 'lightning', 'timm', 'datasets'} & sys.modules.keys())))\n"
        f"sys.argv = ['run.py', *{arguments}, 'logger=csv', 'hydra.run.dir={tmp_path / 'run'}']\n"
        "run.main()"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert said in ended.stderr
    assert ended.stdout.endswith("[]\n")


@pytest.mark.parametrize("value", [32, [0.5], "auto"])
def test_auto_may_be_replaced_and_given(value: Any) -> None:
    check_type("data.mean", value, "auto")
    check_type("data.mean", "auto", [0.5])
    with pytest.raises(ValueError, match=r"optimizer\.lr=auto must be of type float"):
        check_type("optimizer.lr", "auto", 0.1)
