"""The encoder card in a checkpoint: how to build the encoder and the inputs it was trained on."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf, read_write
from torch import Tensor, nn

from ssl_zoo import __version__, encoder_file
from ssl_zoo.backbones.transformers_config import plain_config
from ssl_zoo.config import CONF
from ssl_zoo.training import checkpoints
from ssl_zoo.untrusted import check_plain

log = logging.getLogger(__name__)

TOKENIZER_NAME = "tokenizer.json"
"""Copy of the tokenizer in the folder of a text run; the checkpoint is useless without it."""
IMAGE_INPUT_FACTS = ("image_size", "in_chans", "mean", "std")
TEXT_INPUT_FACTS = ("tokenizer_hash",)


def make_encoder_card(
    choice: str, arguments: Mapping[str, Any], backbone: nn.Module, facts: Mapping[str, Any]
) -> dict[str, Any]:
    """Builds the card of an encoder, stored as `checkpoint["ssl_zoo"]["card"]["encoder"]`.

    Args:
        choice: name of the backbone's file in conf/backbone.
        arguments: that configuration, resolved.
        backbone: the module built from it; determines the stem if the configuration leaves it open.
        facts: facts of the data module.

    Returns:
        `{"backbone": choice, "arguments": {...}, "facts": {...}}` with plain values only. The facts are those that
        later inputs must match: image size, channels, mean and standard deviation, or the tokenizer's hash.
    """
    kept = {key: value for key, value in arguments.items() if not key.startswith("_") and key != "strict"}
    if "small_stem" in kept:
        kept["small_stem"] = backbone.small_stem
    if "pretrained" in kept:
        kept["pretrained"] = False  # the checkpoint has the weights
    names = TEXT_INPUT_FACTS if "vocab_size" in kept else IMAGE_INPUT_FACTS
    return {"backbone": choice, "arguments": kept, "facts": {name: facts[name] for name in names}}


def is_training_option(argument: str) -> bool:
    """Whether a backbone argument affects training only and not the weights: dropout and gradient checkpointing."""
    return "drop" in argument or argument == "grad_checkpointing"


def read_encoder_card(checkpoint: str) -> tuple[dict[str, Any] | None, Path | None]:
    """Reads the encoder card and locates the tokenizer of a checkpoint file or of a run folder's last checkpoint.

    Returns:
        The card, None with a warning for checkpoints of versions without one; the path of the tokenizer, None if the
        run has none.

    Raises:
        ValueError: if the checkpoint is missing, damaged or from another program, or its card is not plain values.
    """
    path = checkpoints.resolve_checkpoint(checkpoint)
    saved = checkpoints.load_checkpoint(path)
    if "ssl_zoo" not in saved:
        raise ValueError(
            f"checkpoint={checkpoint} was not written by ssl_zoo. For other weights give backbone.pretrained=<file>"
        )
    card = saved["ssl_zoo"].get("card", {}).get("encoder")
    if card is None:
        log.warning(
            "checkpoint=%s was written by an earlier version and does not say what its encoder needs: give the "
            "backbone, data.image_size, data.mean, data.std or data.tokenizer.name that it was trained with",
            checkpoint,
        )
        return None, None
    check_card(card)
    kept = path.parent.parent / TOKENIZER_NAME
    return card, kept if kept.is_file() else None


def check_card(card: Mapping[str, Any]) -> None:
    """Raises ValueError for a card that holds more than numbers and names."""
    for key, value in {**card["arguments"], **card["facts"]}.items():
        check_plain(key, value, "checkpoint")


def make_manifest(
    target: str, card: Mapping[str, Any], network: nn.Module, data: Mapping[str, Any], training: dict[str, Any]
) -> dict[str, Any]:
    """Builds the manifest of an encoder file, see `ssl_zoo.encoder_file`.

    Args:
        target: the backbone's `_target_`.
        card: of `make_encoder_card`.
        network: the encoder.
        data: the configuration of the data, resolved.
        training: what is recorded of the run that trained it; its key "environment" becomes one of the manifest.
    """
    arguments, facts, of_network = dict(card["arguments"]), card["facts"], cast(Any, network)
    if target == encoder_file.TRANSFORMERS_BUILDER:  # whatever the Hub says of that name later
        arguments = {"pool": of_network.pool, "pad_id": of_network.pad_id}
        arguments["config"] = plain_config(of_network.model.config)
    pooling = getattr(network, "pool", getattr(network, "global_pool", None))
    if not isinstance(pooling, str):
        pooling = getattr(pooling, "pool_type", None)
    inputs = {"max_length": data.get("max_length"), "replace": data.get("replace") or {}}
    if "image_size" in facts:
        inputs = {"bits": data.get("bits"), "interpolation": "bilinear", "crop_ratio": 1.0}
    return {
        "format": encoder_file.FORMAT,
        "version": encoder_file.VERSION,
        "modality": "image" if "image_size" in facts else "text",
        "builder": target,
        "arguments": arguments,
        "num_features": of_network.num_features,
        "pooling": pooling,
        "input": {**facts, **inputs},
        "environment": training.pop("environment", {}),
        "training": training,
        "ssl_zoo": __version__,
        "licence": None,
    }


def encoder_of_checkpoint(path: Path) -> tuple[dict[str, Any], dict[str, Tensor], str | None]:
    """Reads the encoder out of a checkpoint, for `ssl_zoo.encoder.load`.

    Returns:
        A manifest with what is needed to build the encoder; the weights; the tokenizer, None for images.

    Raises:
        ValueError: if the file is damaged, or was written by another program or a version without encoder cards.
    """
    saved = checkpoints.load_checkpoint(path)
    state = saved.get("ssl_zoo") or {}
    card = state.get("card", {}).get("encoder")
    if card is None:
        raise ValueError(f"encoder={path}: does not say how its encoder is built. Give one that this version wrote")
    check_card(card)
    prefix = state["encoder"] + "."
    weights = {key.removeprefix(prefix): v for key, v in saved["state_dict"].items() if key.startswith(prefix)}
    arguments, facts = card["arguments"], card["facts"]
    for_images = "image_size" in facts
    builder = encoder_file.IMAGE_BUILDER if for_images else encoder_file.TEXT_BUILDER
    if not for_images and "trunk" not in arguments:
        builder = encoder_file.TRANSFORMERS_BUILDER
    tokenizer = path.parent.parent / TOKENIZER_NAME
    manifest = {
        "modality": "image" if for_images else "text",
        "builder": builder,
        "arguments": arguments,
        "input": {**facts, **({} if for_images else {"max_length": arguments["max_length"]})},
    }
    return manifest, weights, tokenizer.read_text() if not for_images and tokenizer.is_file() else None


def apply_encoder_card(cfg: DictConfig, given: Sequence[str], choices: Any) -> dict[str, Any] | None:
    """Changes `cfg` to build the backbone stored in `cfg.checkpoint`, with the inputs it was trained on.

    Nothing has to be repeated on the command line. Dropout and gradient checkpointing stay as configured.

    Args:
        cfg: the composed configuration; its backbone and data are modified in place.
        given: overrides from the command line, "key=value".
        choices: names of the chosen files by group; the backbone's is set to that of the checkpoint.

    Returns:
        The card of the encoder (see `make_encoder_card`), None if the checkpoint is too old to have one.

    Raises:
        ValueError: if the command line contradicts the checkpoint, or the data is of another modality.
    """
    checkpoint = str(cfg.checkpoint)
    card, tokenizer = read_encoder_card(checkpoint)
    if card is None:
        return None

    # Reject whatever contradicts the checkpoint.
    keys = {argument.split("=")[0].lstrip("+~") for argument in given}
    choice, arguments, facts = card["backbone"], card["arguments"], card["facts"]
    if choice not in {path.stem for path in (CONF / "backbone").glob("*.yaml")}:
        raise ValueError(f"checkpoint={checkpoint} holds backbone={choice}, which conf/backbone does not have")
    if "backbone" in keys and choices["backbone"] != choice:
        raise ValueError(mismatch_message("backbone", choices["backbone"], choice, checkpoint))
    chosen: Any = OmegaConf.to_container(cfg.backbone)
    for key in sorted(key.removeprefix("backbone.") for key in keys if key.startswith("backbone.")):
        if not is_training_option(key) and chosen.get(key) != arguments.get(key):
            raise ValueError(mismatch_message(f"backbone.{key}", chosen.get(key), arguments.get(key), checkpoint))
    for_images = "image_size" in facts
    if for_images != ("image_size" in cfg.data):
        kind = "images" if for_images else "text"
        raise ValueError(
            f"data={choices['data']}: the encoder of checkpoint={checkpoint} is for {kind}. Choose other data"
        )

    # Take backbone and inputs from the checkpoint.
    shipped = OmegaConf.load(CONF / "backbone" / f"{choice}.yaml")
    free = {key: value for key, value in chosen.items() if is_training_option(key)}
    cfg.backbone = {"_target_": OmegaConf.select(shipped, "_target_"), **arguments, **free}
    with read_write(choices):
        choices["backbone"] = choice
    if for_images:
        for name, value in facts.items():
            if f"data.{name}" not in keys:
                cfg.data[name] = value
        check_inputs(card, OmegaConf.to_container(cfg.data), checkpoint)  # type: ignore[arg-type]
    elif tokenizer is not None and not any(key.startswith("data.tokenizer") for key in keys):
        cfg.data.tokenizer.name = str(tokenizer)
    return card


def check_inputs(card: Mapping[str, Any], facts: Mapping[str, Any], checkpoint: str) -> None:
    """Raises ValueError if the data module's facts differ from those the encoder was trained with."""
    for name, trained in card["facts"].items():
        if (found := facts.get(name)) == trained:
            continue
        if name == "tokenizer_hash":
            raise ValueError(
                f"data.tokenizer: it is not the one that checkpoint={checkpoint} was trained with (sha256 "
                f"{trained[:12]}, here {str(found)[:12]}), so the same ids mean other words. Leave data.tokenizer out "
                f"if the checkpoint is in its run folder, else give data.tokenizer.name=<{TOKENIZER_NAME} of that run>"
            )
        raise ValueError(mismatch_message(f"data.{name}", found, trained, checkpoint))


def mismatch_message(key: str, given: Any, trained: Any, checkpoint: str) -> str:
    """Returns the error message for a command-line value that contradicts the checkpoint."""
    return (
        f"{key}={given}: the encoder of checkpoint={checkpoint} was trained with {trained}. Leave {key} out: the "
        "checkpoint brings its own"
    )


def describe_inputs(card: Mapping[str, Any]) -> str:
    """Formats the card as one line, printed when a run starts."""
    arguments = ", ".join(f"{key}={value}" for key, value in card["arguments"].items() if value is not None)
    facts = ", ".join(f"{key} {str(value)[:24]}" for key, value in card["facts"].items())
    return f"backbone={card['backbone']} ({arguments}), for {facts}"
