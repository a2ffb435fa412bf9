"""Finds a user's mistakes in the command line's overrides and names the nearest right one. Plain values only."""

import difflib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from hydra.errors import MissingConfigException, OverrideParseException
from omegaconf.errors import MissingMandatoryValue

SEVERAL_KINDS = ("backbone.pretrained", "budget.", "data.splits.train", "trainer.devices", "trainer.precision")
"""Beginnings of keys of which the default shows one kind of several; the part they belong to judges them."""


def nearest(name: str, known: Iterable[str]) -> str:
    """ ", did you mean a or b?" with the known names closest to `name`, or "." when none is close."""
    close = difflib.get_close_matches(name, list(known), n=3, cutoff=0.5)
    return f", did you mean {' or '.join(close)}?" if close else "."


def quoted(argument: str) -> str:
    """`text=...` with its value quoted for Hydra, whose grammar would read the brackets of [MASK]; others as is."""
    key, is_given, value = argument.partition("=")
    if key != "text" or not is_given or value[:1] in ("'", '"'):
        return argument
    return "text='" + value.replace("'", "\\'") + "'"


def dotted_keys(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Every key of a nested mapping in dotted form, inner ones included, with its value."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        flat[prefix + str(key)] = value
        if isinstance(value, Mapping):
            flat |= dotted_keys(value, f"{prefix}{key}.")
    return flat


def check_type(key: str, value: Any, default: Any) -> None:
    """Raises ValueError if `value` is of another kind than the default it replaces.

    A default of null accepts anything; an integer does for a float; an interpolation ("${...}") is not judged here,
    nor what takes values of several kinds.
    """
    unjudged = default is None or value is None or any(isinstance(v, str) and "${" in v for v in (value, default))
    if unjudged or key.startswith(SEVERAL_KINDS):
        return
    for kind, accepted in ((bool, bool), (int, int), (float, int | float), (str, str), (list, list), (dict, dict)):
        if isinstance(default, kind):
            if not isinstance(value, accepted) or (isinstance(value, bool) and kind is not bool):
                raise ValueError(f"{key}={value} must be of type {kind.__name__}, like its default {default}")
            return


def explain(error: Exception, conf: Path) -> str:
    """A complaint of Hydra or OmegaConf about the command line in one line, with the nearest right names.

    conf: the configuration folder, whose files are what a name may stand for.
    """
    message = " ".join(str(error).split())
    if isinstance(error, OverrideParseException):
        return f"{error.override}: not of the form key=value, or its brackets or quotes do not match ({message})"
    if isinstance(error, MissingConfigException):
        group, _, wrong = str(error.missing_cfg_file).rpartition("/")
        if there := sorted(file.stem for file in (conf / group).glob("*.yaml")):
            return f"{group}={wrong}: no such choice{nearest(wrong, there)} There are: {', '.join(there)}"
    if match := re.search(r"Could not override '([^']+)'", message):
        wrong = match.group(1)
        known = {group.name for group in conf.iterdir() if group.is_dir()} | set(
            dotted_keys(_load(conf / "config.yaml"))
        )
        choices = {
            file: {f"{file.parent.name}.{key}" for key in dotted_keys(_load(file))} for file in conf.glob("*/*.yaml")
        }
        if having := sorted(file.stem for file, keys in choices.items() if wrong in keys):
            group = wrong.partition(".")[0]
            return f"{wrong}: the chosen {group} has no such key. It belongs to {group}={', '.join(having)}"
        known = known.union(*choices.values())
        return f"{wrong}: no such key{nearest(wrong, known)} A new key is added by +{wrong}=..."
    if isinstance(error, MissingMandatoryValue):
        return f"{error.full_key} must be given, e.g. {error.full_key}=..."
    if "Config group override must be" in message:
        return "a group cannot be null: give the name of a file below conf/, such as logger=csv, or evaluators=[]"
    return message


def _load(file: Path) -> dict[str, Any]:
    content = yaml.safe_load(file.read_text())
    return content if isinstance(content, dict) else {}
