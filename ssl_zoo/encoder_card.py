"""What a checkpoint says of its encoder: how to build it, and for which inputs it was trained."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from ssl_zoo import checkpoints

log = logging.getLogger(__name__)

TOKENIZER = "tokenizer.json"  # a text run keeps its own copy: a checkpoint means nothing without it
IMAGE_FACTS = ("image_size", "in_chans", "mean", "std")
TEXT_FACTS = ("tokenizer_hash",)


def describe(
    choice: str, arguments: Mapping[str, Any], backbone: nn.Module, facts: Mapping[str, Any]
) -> dict[str, Any]:
    """The card of an encoder, plain values only, for `checkpoint["ssl_zoo"]["card"]["encoder"]`.

    Args:
        choice: name of the backbone's file in conf/backbone.
        arguments: that configuration, resolved.
        backbone: what was built from it; it knows which stem it has where the configuration leaves that open.
        facts: of the data.

    Returns:
        `{"backbone": choice, "arguments": {...}, "facts": {...}}`; the facts are those that inputs must agree with,
        image size, channels, mean and standard deviation, or the hash of the tokenizer.
    """
    kept = {key: value for key, value in arguments.items() if not key.startswith("_")}
    if "small_stem" in kept:
        kept["small_stem"] = backbone.small_stem
    if "pretrained" in kept:
        kept["pretrained"] = False  # the checkpoint has the weights
    names = TEXT_FACTS if "vocab_size" in kept else IMAGE_FACTS
    return {"backbone": choice, "arguments": kept, "facts": {name: facts[name] for name in names}}


def is_free(argument: str) -> bool:
    """Whether an argument of a backbone belongs to training and not to the weights: dropout, and what saves memory."""
    return "drop" in argument or argument == "grad_checkpointing"


def read(checkpoint: str) -> tuple[dict[str, Any] | None, Path | None]:
    """The card in a checkpoint file or a run folder's newest checkpoint, and the tokenizer that the run kept.

    Returns:
        The card, None with a warning for a checkpoint written before there was one; the path of the tokenizer, None
        where there is none.

    Raises:
        ValueError: for a checkpoint that is damaged, missing or not of a run, or a card of anything but plain values.
    """
    path = checkpoints.resolve(checkpoint)
    saved = checkpoints.load(path)
    if "ssl_zoo" not in saved:
        raise ValueError(
            f"checkpoint={checkpoint} is of no run of ours. For weights from elsewhere give backbone.pretrained=<file>"
        )
    card = saved["ssl_zoo"].get("card", {}).get("encoder")
    if card is None:
        log.warning(
            "checkpoint=%s was written by an earlier version and does not say what its encoder needs: give the "
            "backbone, data.image_size, data.mean, data.std or data.tokenizer.name that it was trained with",
            checkpoint,
        )
        return None, None
    if not all(_is_plain(value) for value in (*card["arguments"].values(), *card["facts"].values())):
        raise ValueError(f"checkpoint={checkpoint}: its card holds more than numbers and names. Do not trust this file")
    kept = path.parent.parent / TOKENIZER
    return card, kept if kept.is_file() else None


def _is_plain(value: Any) -> bool:
    """Whether a value configures nothing by itself: no nested configuration, no interpolation."""
    if isinstance(value, list):
        return all(_is_plain(item) and not isinstance(item, list) for item in value)
    return value is None or isinstance(value, int | float) or (isinstance(value, str) and "${" not in value)


def check(card: Mapping[str, Any], facts: Mapping[str, Any], checkpoint: str) -> None:
    """Raises ValueError when the data gives other inputs than the encoder was trained on."""
    for name, trained in card["facts"].items():
        if (found := facts.get(name)) == trained:
            continue
        if name == "tokenizer_hash":
            raise ValueError(
                f"data.tokenizer: it is not the one that checkpoint={checkpoint} was trained with (sha256 "
                f"{trained[:12]}, here {str(found)[:12]}), so the same ids mean other words. Leave data.tokenizer out "
                f"if the checkpoint is in its run folder, else give data.tokenizer.name=<{TOKENIZER} of that run>"
            )
        raise ValueError(mismatch(f"data.{name}", found, trained, checkpoint))


def mismatch(key: str, given: Any, trained: Any, checkpoint: str) -> str:
    """The sentence for a key that the command line sets and the checkpoint contradicts."""
    return (
        f"{key}={given}: the encoder of checkpoint={checkpoint} was trained with {trained}. Leave {key} out: the "
        "checkpoint brings its own"
    )


def summary(card: Mapping[str, Any]) -> str:
    """The card in one line for the first lines of a run."""
    arguments = ", ".join(f"{key}={value}" for key, value in card["arguments"].items() if value is not None)
    facts = ", ".join(f"{key} {str(value)[:24]}" for key, value in card["facts"].items())
    return f"backbone={card['backbone']} ({arguments}), for {facts}"
