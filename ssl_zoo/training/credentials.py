"""Keeps the credentials in a configuration off disks, loggers and terminals.

Hydra writes the composed configuration before the program sees it. `MoveCredentials` therefore moves each credential,
whether from the command line or from a file, into an environment variable and leaves `${oc.env:...}` in its place;
processes that a sweep starts inherit the variable. `masked` covers everything written later, when values are resolved.

A credential is the value of a key whose name ends in api_key, access_key, password, secret or auth_token, or the
`user:password@` of an address. Keys such as pad_token, mask_token or sort_key are not credentials, and no key is
rejected because of its name.
"""

import logging
import os
import re
from collections.abc import Callable, Iterator
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, flag_override

MASK = "***"

_CREDENTIAL_NAME = r"(?:api_?key|access_?key|password|passwd|secret|(?:access|auth|hf|hub)_token)"
_KEY = re.compile(rf"(?:.*[_.-])?{_CREDENTIAL_NAME}", re.IGNORECASE)
_IN_ADDRESS = re.compile(r"(?<=://)[^/\s:@'\"$]*:[^/\s@'\"]+(?=@)")
_VALUE = r"(?P<value>'[^']*'|\"[^\"]*\"|[^\s,}\]'\"]+)"
_ASSIGNED = re.compile(  # key=value anywhere; key: value only inside a mapping, since prose may contain these words
    rf"(?P<key>\b(?:[\w./-]+[_.-])?{_CREDENTIAL_NAME}=|(?:[{{,]\s*|['\"])(?:[\w.-]+[_.-])?{_CREDENTIAL_NAME}['\"]?\s*:\s*){_VALUE}",
    re.IGNORECASE,
)


def masked(value: Any, key: str = "") -> Any:
    """Returns a copy of `value` (mappings, lists, strings, numbers) with every credential replaced by `MASK`.

    `key` is the name under which `value` is stored. References such as `${oc.env:WANDB_API_KEY}` are kept, because
    they do not reveal the credential.
    """
    return _replace_credentials(value, key, lambda text, _: text if text.startswith("${") else MASK)


def masked_text(text: str) -> str:
    """Returns `text` with passwords in URLs and the values of `api_key=...` and similar replaced by `MASK`."""
    return str(masked(text))


class MaskCredentials(logging.Filter):
    """Logging filter that masks credentials in every record."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Masks credentials in a log record."""
        record.msg = masked_text(record.getMessage())
        record.args = None
        return True


class MoveCredentials(Callback):
    """Hydra callback that runs after composition and before anything is written."""

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        """Moves credentials out of the configuration before a run."""
        move_credentials(config)

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Moves credentials out of the configuration before a sweep."""
        move_credentials(config)


def move_credentials(config: DictConfig) -> None:
    """Replaces each credential in `config`, including its `hydra` section, by `${oc.env:...}`, in place."""
    names: dict[str, str] = {}

    def to_environment(value: str, key: str) -> str:
        if value.startswith("${"):
            return value
        name = names.setdefault(value, f"SSL_ZOO_{re.sub('[^A-Z0-9]+', '_', key.upper())}_{len(names)}")
        os.environ[name] = value
        return f"${{oc.env:{name}}}"

    leaves = list(_leaves(OmegaConf.to_container(config)))
    with flag_override(config, ["struct", "readonly"], False):
        for path, value in leaves:
            _set_node(config, path, _replace_credentials(value, str(path[-1]), to_environment, in_texts=False))
        for path, value in leaves:
            if path[:2] == ("hydra", "overrides") and isinstance(value, str):
                key, equals, _ = value.partition("=")
                kept = OmegaConf.to_container(config)
                for part in key.lstrip("+~").split("."):  # what the value was parsed to
                    kept = kept.get(part) if isinstance(kept, dict) else None
                is_moved = equals and _KEY.fullmatch(key) and isinstance(kept, str)
                _set_node(
                    config, path, f"{key}={kept}" if is_moved else _replace_credentials(value, "", to_environment)
                )
            elif path == ("hydra", "job", "override_dirname"):
                _set_node(config, path, masked(value))


def _set_node(config: Any, path: tuple[Any, ...], value: Any) -> None:
    *parents, last = path
    for part in parents:
        config = config._get_node(part)
    if config._get_node(last)._value() != value:
        config[last] = value


def _leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    if isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _leaves(item, (*path, key))
    else:
        yield path, value


def _replace_credentials(value: Any, key: str, new: Callable[[str, str], str], in_texts: bool = True) -> Any:
    """Returns `value` with each credential replaced by `new(credential, key)`, with `in_texts` also within strings."""
    if isinstance(value, dict):
        return {name: _replace_credentials(item, str(name), new, in_texts) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_replace_credentials(item, key, new, in_texts) for item in value]
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if _KEY.fullmatch(key) and (is_number or (isinstance(value, str) and value)):
        return new(str(value), key)
    if not isinstance(value, str):
        return value
    value = _IN_ADDRESS.sub(lambda match: new(match.group(), "address"), value)
    if in_texts:
        value = _ASSIGNED.sub(lambda match: match["key"] + new(match["value"], match["key"]), value)
    return value
