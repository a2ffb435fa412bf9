"""Each command line that the README shows composes, and each choice that it lists exists."""

import re
import shlex
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser

from ssl_zoo.run import CONF

README = (Path(__file__).parent.parent / "README.md").read_text()
COMMANDS = re.findall(r"^(?:\| )?`?(?:uv run |python )run\.py ?([^\n`|]*)", README, re.MULTILINE)
COMMANDS += re.findall(r"`python run\.py ([^`]*)`", README)


def test_commands_are_found() -> None:
    assert len(COMMANDS) >= 8


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_composes(command: str) -> None:
    arguments = [a for a in shlex.split(command) if a != "-m" and not a.startswith("hydra.")]
    arguments = [f"text='{a.removeprefix('text=')}'" if a.startswith("text=") else a for a in arguments]
    singles = []
    for override in OverridesParser.create().parse_overrides(arguments):
        if override.is_sweep_override():
            singles.append(f"{override.get_key_element()}={next(iter(override.sweep_string_iterator()))}")
        else:
            singles.append(override.input_line or "")
    with initialize_config_dir(str(CONF), version_base="1.3"):
        compose("config", singles)


@pytest.mark.parametrize("group", ["method", "backbone", "data", "views", "optimizer", "schedule", "trainer", "logger"])
def test_every_listed_choice_exists_and_every_choice_is_listed(group: str) -> None:
    row = next(line for line in README.splitlines() if line.startswith(f"| `{group}=`") or f"`{group}=`" in line[:40])
    there = {path.stem for path in (CONF / group).glob("*.yaml")}
    named = set(re.findall(r"`([a-z0-9_]+)`", row.split("|")[2]))
    assert there <= named | {"text_folder"}, there - named
