"""Converts configurations of earlier versions to the current names.

Run folders and checkpoints store the configuration of their run, which names classes by `_target_`. The tables below
list every name that has moved since, so that old runs can be resumed and old encoders loaded.
"""

import re
from typing import Any

MOVED_TARGETS = {
    "ssl_zoo.backbones.image_backbone": "ssl_zoo.backbones.image.image_backbone",
    "ssl_zoo.data.images.ImageData": "ssl_zoo.data.image.module.ImageData",
    "ssl_zoo.data.text.TextData": "ssl_zoo.data.text.module.TextData",
    "ssl_zoo.functional.warmup_cosine": "ssl_zoo.schedules.warmup_cosine",
    "ssl_zoo.functional.warmup_linear": "ssl_zoo.schedules.warmup_linear",
    "ssl_zoo.loggers.Wandb": "ssl_zoo.training.loggers.Wandb",
    "ssl_zoo.loggers.tensorboard": "ssl_zoo.training.loggers.tensorboard",
    "ssl_zoo.masks.BlockMask": "ssl_zoo.nn.masks.BlockMask",
    "ssl_zoo.masks.RandomMask": "ssl_zoo.nn.masks.RandomMask",
    "ssl_zoo.optimizers.lars": "ssl_zoo.training.optimizers.lars",
    "ssl_zoo.text_backbones.TextTransformer": "ssl_zoo.backbones.text.TextTransformer",
    "ssl_zoo.text_backbones.transformers_backbone": "ssl_zoo.backbones.text.transformers_backbone",
}
"""`_target_` in earlier versions -> current `_target_`."""
ADDED_KEYS: dict[str, Any] = {
    "backbone.strict": True,
    "data.check": False,
    "data.heldout": None,
    "data.label_fraction": None,
    "data.labels_per_class": None,
    "method.hidden_norm": True,
    "method.last_norm": False,
    "method.views_per_batch_norm": "joint",
    "objective": None,
    "optimizer.decay_norms_and_biases": False,
    "trainer.callbacks": None,
    "trainer.plugins": None,
    "trainer.requeue": "auto",
}
"""Keys that earlier versions did not have -> the value that corresponds to their behaviour."""
SPLIT_KEYS = {
    "teacher_temperature": ("teacher_temperature_start", "teacher_temperature", "teacher_temperature_warmup"),
}
"""Keys that held a list in earlier versions -> the keys of its elements."""
_PAPER_VIEWS = re.compile(r"\$\{paper_views\.(\w+)\}")


def with_current_names(config: Any) -> Any:
    """Returns `config` with every `_target_` and every key by its current name, at any depth, resolved or not."""
    if isinstance(config, list):
        return [with_current_names(value) for value in config]
    if not isinstance(config, dict):
        return config
    renamed: dict[str, Any] = {}
    for key, value in config.items():
        if key in SPLIT_KEYS and isinstance(value, list):
            renamed |= zip(SPLIT_KEYS[key], value, strict=True)
        else:
            renamed[key] = with_current_names(value)
    if isinstance(target := renamed.get("_target_"), str):
        renamed["_target_"] = MOVED_TARGETS.get(target, target)
    return renamed


def with_resolved_views(config: dict[str, Any]) -> dict[str, Any]:
    """Returns `config` with a reference to the paper's views replaced by the views, and without the unused ones."""
    views, offered = config.get("views"), config.get("paper_views", {})
    if isinstance(views, str):
        reference = _PAPER_VIEWS.fullmatch(views)
        if not reference or reference[1] not in offered:
            return config
        views = offered[reference[1]]
    return {key: value for key, value in config.items() if key != "paper_views"} | {"views": views}
