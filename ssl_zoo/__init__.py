"""Self-supervised learning on images and text. Start with `ssl_zoo/method.py`."""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from ssl_zoo.api import evaluate, finetune, pretrain
    from ssl_zoo.encoder import Encoder, load
    from ssl_zoo.method import Batch, Method

__all__ = ["Batch", "Encoder", "Method", "__version__", "evaluate", "finetune", "load", "pretrain"]

_HOMES = {
    "Batch": "ssl_zoo.method",
    "Encoder": "ssl_zoo.encoder",
    "Method": "ssl_zoo.method",
    "evaluate": "ssl_zoo.api",
    "finetune": "ssl_zoo.api",
    "load": "ssl_zoo.encoder",
    "pretrain": "ssl_zoo.api",
}


def __getattr__(name: str) -> Any:
    """Imports a public name at its first use: torch takes seconds to import, and the command line need not wait."""
    if name not in _HOMES:
        raise AttributeError(f"module 'ssl_zoo' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
