"""Self-supervised learning on images and text. Start with `ssl_zoo/method.py`."""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from ssl_zoo.api import evaluate, finetune, pretrain
    from ssl_zoo.encoder import Encoder, load
    from ssl_zoo.method import Batch, Method
    from ssl_zoo.report.report import compare_folders as compare
    from ssl_zoo.tasks.embed import embed_data as embed
    from ssl_zoo.tasks.map import make_map
    from ssl_zoo.tasks.neighbours import find_neighbours

__all__ = [
    "Batch",
    "Encoder",
    "Method",
    "__version__",
    "compare",
    "embed",
    "evaluate",
    "find_neighbours",
    "finetune",
    "load",
    "make_map",
    "pretrain",
]

_HOMES = {
    "Batch": "ssl_zoo.method.Batch",
    "Encoder": "ssl_zoo.encoder.Encoder",
    "Method": "ssl_zoo.method.Method",
    "compare": "ssl_zoo.report.report.compare_folders",
    "embed": "ssl_zoo.tasks.embed.embed_data",
    "evaluate": "ssl_zoo.api.evaluate",
    "find_neighbours": "ssl_zoo.tasks.neighbours.find_neighbours",
    "finetune": "ssl_zoo.api.finetune",
    "load": "ssl_zoo.encoder.load",
    "make_map": "ssl_zoo.tasks.map.make_map",
    "pretrain": "ssl_zoo.api.pretrain",
}


def __getattr__(name: str) -> Any:
    """Imports a public name at its first use: torch takes seconds to import, and the command line need not wait."""
    if name not in _HOMES:
        raise AttributeError(f"module 'ssl_zoo' has no attribute {name!r}")
    from importlib import import_module

    module, _, attribute = _HOMES[name].rpartition(".")
    return getattr(import_module(module), attribute)
