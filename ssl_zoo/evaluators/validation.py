"""The validation split: examples of the training split that are held out to choose a setting, never test examples."""

from torch import Tensor

from ssl_zoo.evaluators.base import random_rows


def validation_split(count: int, share: float) -> tuple[Tensor, Tensor]:
    """Divides `count` examples at random, the same way each time.

    Args:
        count: examples, at least 2.
        share: to hold out, in (0, 1); at least one example, and all but one at most.

    Returns:
        Rows to train on and rows to hold out, int64 each.
    """
    order = random_rows(count, count)
    held = min(max(round(share * count), 1), count - 1)
    return order[held:], order[:held]


def check_validation(key: str, share: float) -> None:
    """Raises ValueError unless the share of the setting `key` lies in (0, 1)."""
    if not 0 < share < 1:
        raise ValueError(f"{key}.validation={share} must lie between 0 and 1, 0.2 for example")
