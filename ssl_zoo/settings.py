"""Checks the types of configuration values against the signatures of the components that receive them.

A component is the class or function that a `_target_` names. Components check ranges themselves when they are built.
Values that contain an interpolation, "${...}", are not checked.
"""

import collections.abc
import inspect
import math
import re
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Union, get_args, get_origin

import hydra

TYPE_NAMES: dict[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a finite number",
    str: "text",
    None: "null",
    types.NoneType: "null",
    list: "a list",
    dict: "a mapping",
}
"""Names of types in error messages, in YAML's terms."""


def check_part(path: str, section: Any) -> None:
    """Checks the types of all values in a section, including nested sections with their own `_target_`.

    Args:
        path: key of the section, such as "data".
        section: its value.

    Raises:
        ValueError: if a value has a type that its component does not accept; names the key.
        ImportError: if the module of a component is not found.
    """
    if isinstance(section, Mapping):
        hints = _hints(f"{path}._target_", section["_target_"]) if "_target_" in section else {}
        for key, value in section.items():
            check_setting(f"{path}.{key}", value, hints.get(key, Any))
            check_part(f"{path}.{key}", value)
    elif isinstance(section, Sequence) and not isinstance(section, str):
        for number, item in enumerate(section):
            check_part(f"{path}.{number}", item)


def check_setting(key: str, value: Any, hint: Any) -> None:
    """Raises ValueError unless `value` has the type `hint`; a YAML list is accepted for any sequence."""
    if not _accepts(hint, value):
        shown = "null" if value is None else value
        raise ValueError(f"{key}={shown} must be {' or '.join(dict.fromkeys(_type_names(hint)))}")


def check_at_least(key: str, value: Any, minimum: float, exclusive: bool = False) -> None:
    """Raises ValueError if a number is below `minimum`, or equal to it if `exclusive`; None is accepted."""
    if value is not None and not (value > minimum or (value == minimum and not exclusive)):
        raise ValueError(f"{key}={value} must be {'above' if exclusive else 'at least'} {minimum}")


def _hints(key: str, target: str) -> dict[str, Any]:
    """Returns the annotated types of a component's parameters by name; {} if it has none."""
    try:
        component: Any = hydra.utils.get_object(target)
    except ImportError as error:
        missing = re.search(r"No module named '(.+?)'", str(error))
        remedy = f" ({missing[1]}). Install it, or add its folder to PYTHONPATH" if missing else f": {error}"
        raise ImportError(f"{key}={target}: a module is not found{remedy}") from error
    function: Callable[..., Any] = component.__init__ if inspect.isclass(component) else component
    try:
        return typing.get_type_hints(function)
    except (NameError, TypeError):  # names that exist only for type checkers; builtins
        return {}


def _accepts(hint: Any, value: Any) -> bool:
    if isinstance(value, str) and "${" in value:
        return True
    if isinstance(value, float) and not math.isfinite(value):
        return False
    if hint is Any:
        return True
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return any(_accepts(one, value) for one in args)
    if origin is Literal:
        return value in args
    if hint in (None, types.NoneType):
        return value is None
    if hint in (bool, str):
        return isinstance(value, hint)
    if hint in (int, float):
        return isinstance(value, int | hint) and not isinstance(value, bool)
    kind = origin or hint
    if not inspect.isclass(kind) or kind is collections.abc.Callable:
        return True
    if issubclass(kind, Mapping):
        return isinstance(value, Mapping)
    if issubclass(kind, collections.abc.Iterable) and kind.__module__ in ("builtins", "collections.abc", "typing"):
        return _is_list_of(args, value, fixed=kind is tuple)
    return value is not None  # a library class: the component may convert the value


def _is_list_of(args: tuple[Any, ...], value: Any, fixed: bool) -> bool:
    if not isinstance(value, Sequence) or isinstance(value, str):
        return False
    if fixed and args and args[-1] is not Ellipsis:
        return len(value) == len(args) and all(map(_accepts, args, value))
    return not args or all(_accepts(args[0], item) for item in value)


def _type_names(hint: Any) -> list[str]:
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return [word for one in args for word in _type_names(one)]
    if origin is Literal:
        return [str(arg) for arg in args]
    kind = origin or hint
    if kind in TYPE_NAMES:
        return [TYPE_NAMES[kind]]
    if kind is tuple and args and args[-1] is not Ellipsis:
        return [f"a list of {len(args)}"]
    if inspect.isclass(kind) and issubclass(kind, Mapping):
        return ["a mapping"]
    if inspect.isclass(kind) and issubclass(kind, collections.abc.Iterable):
        return [f"a list of which each is {' or '.join(_type_names(args[0]))}" if args else "a list"]
    return ["a finite number"] if kind is Any else []
