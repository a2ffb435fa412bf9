"""`method=auto`: several methods on the same data at a small, equal budget, as a sweep that ends in a comparison.

The command line becomes that of a sweep, so that everything about sweeps holds: one process per job, completed jobs are
skipped when the command is given again, and a report is written at the end (see `Comparison.verdicts`).
"""

from collections.abc import Sequence
from typing import Any

import yaml

from ssl_zoo.config import CONF

FOR_IMAGES = ("simclr", "byol", "vicreg", "barlow_twins")
"""Methods of different kinds that learn with any backbone: contrastive, teacher, variance and covariance."""
FOR_TEXT = ("simclr", "vicreg", "mlm")
"""The same for text, and masked tokens."""
BUDGET = "budget.examples=20000"
"""Each method sees two views of so many examples, unless the command line has a budget."""
TEXT_MODULE = "ssl_zoo.data.text.module.TextData"


def with_methods(arguments: Sequence[str]) -> list[str]:
    """Turns a command line with `method=auto` into a sweep over methods; any other is returned as it is.

    Args:
        arguments: "key=value" and options, as on the command line.
    """
    if "method=auto" not in arguments:
        return list(arguments)
    rest = [argument for argument in arguments if argument not in ("method=auto", "-m", "--multirun")]
    rest = [argument.replace("hydra.run.dir=", "hydra.sweep.dir=", 1) for argument in rest]
    data = next((argument.partition("=")[2] for argument in rest if argument.startswith("data=")), "digits")
    methods = FOR_TEXT if _module(data) == TEXT_MODULE else FOR_IMAGES
    budget = [] if any(argument.startswith("budget.") for argument in rest) else [BUDGET]
    return ["-m", f"method={','.join(methods)}", *rest, *budget]


def _module(data: str) -> str | None:
    """The dotted name of the data module that a file of conf/data builds, None for a file that does not exist."""
    file = CONF / "data" / f"{data}.yaml"
    if not file.is_file():
        return None
    config: dict[str, Any] = yaml.safe_load(file.read_text())
    if (target := config.get("_target_")) is not None:
        return str(target)
    base = next((part for part in config.get("defaults", []) if isinstance(part, str) and part != "_self_"), None)
    return None if base is None else _module(base)
