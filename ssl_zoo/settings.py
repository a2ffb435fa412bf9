"""The rule that each part checks its own settings, in one place: a value is of a type that the part's signature takes.

A part is what a section of the configuration builds, the class or function behind `_target_`. Ranges are the part's own
matter: it raises ValueError when it is built. Values that still refer to something, "${...}", are left alone.
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
"""What a type is called in YAML."""


def check_part(path: str, section: Any) -> None:
    """Raises ValueError, naming the key, where a value below `section` is of no type that its part takes.

    path: the section's own key, such as "data". Sections inside it that have a `_target_` are parts themselves. Raises
    ImportError where the module of a part is not found.
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
    """Raises ValueError unless `value` is of the type `hint`, as YAML has it: a list does for any sequence."""
    if not _accepts(hint, value):
        said = "null" if value is None else value
        raise ValueError(f"{key}={said} must be {' or '.join(dict.fromkeys(_type_names(hint)))}")


def check_at_least(key: str, value: Any, least: float, excluded: bool = False) -> None:
    """Raises ValueError for a number below `least`, or equal to it if that is excluded; null passes."""
    if value is not None and not (value > least or (value == least and not excluded)):
        raise ValueError(f"{key}={value} must be {'above' if excluded else 'at least'} {least}")


def _hints(key: str, target: str) -> dict[str, Any]:
    """The types of a part's parameters by name; of one that has none written down nothing is known."""
    try:
        part: Any = hydra.utils.get_object(target)
    except ImportError as error:
        missing = re.search(r"No module named '(.+?)'", str(error))
        remedy = f" ({missing[1]}). Install it, or add its folder to PYTHONPATH" if missing else f": {error}"
        raise ImportError(f"{key}={target}: a module is not found{remedy}") from error
    function: Callable[..., Any] = part.__init__ if inspect.isclass(part) else part
    try:
        return typing.get_type_hints(function)
    except (NameError, TypeError):  # names of a foreign library's type checker; builtins
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
    return value is not None  # a class of a library: the part may make one of what it is given


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
