"""Reads the configuration stored in a checkpoint as data: none of it is instantiated or interpolated.

A checkpoint may come from an untrusted source, and Hydra calls whatever a configuration names in `_target_`. Only
components in `conf/` are therefore built, selected by name; the checkpoint contributes plain values of their settings:

    saved = checkpoints.load_checkpoint(path)
    config = card.compose(card.read_card(saved, path), ("backbone",))   # config.backbone is safe to instantiate
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import hydra
import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ssl_zoo.backbones.image import LOADING_OPTIONS
from ssl_zoo.config import CONF, shipped_conf
from ssl_zoo.training import moved
from ssl_zoo.untrusted import check_plain


def read_card(saved: Mapping[str, Any], checkpoint: str | Path) -> dict[str, Any]:
    """Returns the card of a loaded checkpoint.

    Args:
        saved: the contents of the checkpoint.
        checkpoint: its path, for the error message.

    Returns:
        A dictionary with the mappings "config", "facts" and "choices" (empty in old checkpoints).

    Raises:
        ValueError: if the checkpoint has no card, for example because another program wrote it.
    """
    state = saved.get("ssl_zoo")
    card = state.get("card") if isinstance(state, dict) else None
    objects = {key: card.get(key, {}) for key in ("config", "facts", "choices")} if isinstance(card, dict) else {}
    if not objects or not all(isinstance(value, dict) for value in objects.values()):
        raise ValueError(f"checkpoint={checkpoint} was not written by ssl_zoo: it has no card")
    return {**objects, "config": moved.with_current_names(objects["config"])}


def compose_from_card(card: Mapping[str, Any], groups: Sequence[str] = ("backbone", "method")) -> DictConfig:
    """Returns the shipped configuration of `groups`, resolved, with the plain values that `card` has for its settings.

    `pretrained` is set to false, because the checkpoint holds the weights, unless `name` is a transformers Hub id.

    Raises:
        ValueError: if a component is not in `conf/` or a value is not plain; names the key.
    """
    names = {group: shipped_name(group, card) for group in groups}
    with shipped_conf():
        config = hydra.compose("config", [f"{group}={name}" for group, name in names.items()])
    for group in groups:
        raw: Any = OmegaConf.to_container(config[group])
        stored = card["config"].get(group, {})
        config[group] = _merge(raw, stored if isinstance(stored, dict) else {}, group)
    facts = {key: value for key, value in card["facts"].items() if key != "class_names"}  # not needed to build
    for key, value in facts.items():
        check_plain(f"facts.{key}", value, "checkpoint")
    config.facts = facts
    try:
        parts = {group: OmegaConf.to_container(config[group], resolve=True) for group in groups}
    except OmegaConfBaseException as error:
        raise ValueError(f"the checkpoint's own configuration is incomplete: {str(error).splitlines()[0]}") from error
    return OmegaConf.create({**parts, "facts": facts})


def shipped_name(group: str, card: Mapping[str, Any]) -> str:
    """Returns the name of the file in `conf/<group>/` that configured a checkpoint's component.

    Cards of older runs have no names and are matched by `_target_`, which is only compared as a string.

    Raises:
        ValueError: if no shipped file has that name and target.
    """
    stored = card["config"].get(group)
    stored = stored if isinstance(stored, dict) else {}
    target, choice = stored.get("_target_"), card["choices"].get(group)
    shipped = {file.stem: yaml.safe_load(file.read_text()) for file in sorted((CONF / group).glob("*.yaml"))}
    shipped = {name: part.get(group, part) for name, part in shipped.items()}  # some files set several groups
    same = {name: part for name, part in shipped.items() if part.get("_target_") == target}
    if choice is not None:
        same = {name: part for name, part in same.items() if name == choice}
    if not same:
        raise ValueError(
            f"the checkpoint's {group} ({group}={choice}, {target}) is not in conf/, and code that a "
            "checkpoint names is never run"
        )
    return min(same, key=lambda name: len(set(same[name]) ^ set(stored)))


def _merge(shipped: dict[str, Any], stored: Mapping[str, Any], path: str) -> dict[str, Any]:
    """Returns `shipped` updated with the plain values in `stored`, including additional options of the network."""
    merged = dict(shipped)
    for key, value in stored.items():
        name = f"{path}.{key}"
        same = key in shipped and type(shipped[key]) is type(value) and shipped[key] == value
        if same or key in ("pretrained", "strict"):  # how a file is loaded, which a checkpoint never has done
            continue
        if not isinstance(key, str) or not key.isidentifier() or key.startswith("_"):
            raise ValueError(f"{name} of the checkpoint is not the shipped one, and is never taken from a checkpoint")
        if key not in shipped and key in LOADING_OPTIONS:
            raise ValueError(f"{name} of the checkpoint names something to be loaded: it is never taken")
        if isinstance(value, Mapping) and isinstance(shipped.get(key), dict):
            merged[key] = _merge(shipped[key], value, name)
            continue
        check_plain(name, value, "checkpoint")
        merged[key] = value
    if "pretrained" in shipped:  # with a Hub id it selects the configuration; otherwise the weights are loaded later
        merged["pretrained"] = stored.get("pretrained") is True and "/" in str(merged["name"])
    return merged
