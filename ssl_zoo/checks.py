"""Checks of a method's settings; error messages name the key, the value and the remedy."""

import math


def choice(options: tuple[str, ...], **values: str) -> None:
    """Raises ValueError unless each value is one of `options`; names become keys of `method.`."""
    for name, value in values.items():
        if value not in options:
            raise ValueError(f"method.{name}={value}: give one of {', '.join(options)}")


def positive(**values: float) -> None:
    """Raises ValueError unless each value is a finite number above 0; names become keys of `method.`."""
    for name, value in values.items():
        if not isinstance(value, int | float) or not 0 < value < math.inf:
            raise ValueError(f"method.{name}={value} must be a finite number above 0")


def share(**values: float) -> None:
    """Raises ValueError unless each value is a share of the run in [0, 1]; names become keys of `method.`."""
    for name, value in values.items():
        if not isinstance(value, int | float) or not 0 <= value <= 1:
            raise ValueError(f"method.{name}={value} is a share of the run: give a number from 0 to 1")


def fraction(**values: float) -> None:
    """Raises ValueError unless each value lies in (0, 1), both excluded; names become keys of `method.`."""
    for name, value in values.items():
        if not isinstance(value, int | float) or not 0 < value < 1:
            raise ValueError(f"method.{name}={value} must lie between 0 and 1, both excluded")
