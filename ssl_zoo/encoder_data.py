"""The data that a task with `encoder=` reads: what a command line leaves out is taken from the encoder."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from ssl_zoo import encoder_file, files

if TYPE_CHECKING:  # imports torch, which a mistake on the command line does not wait for
    from ssl_zoo.encoder import Encoder

OPEN_BATCH_SIZE = 64
"""Examples per forward pass where `data.batch_size` leaves it open."""
IMAGE_SETTINGS = ("image_size", "in_chans", "mean", "std", "bits")
"""Settings of image data that an encoder brings."""
_OF_DATA = re.compile(r"\+{0,2}(experiment|data(\.[A-Za-z]\w*)*)=", re.ASCII)


def with_encoder_data(arguments: Sequence[str]) -> list[str]:
    """Adds the choice of data to a command line that has `encoder=` and names no data.

    Fine-tuning is given the views of `method=supervised`.
    Files given by `data.path` alone are read as `data=folder` or `data=text_folder`, whichever the encoder is for.
    Without them the data is that of the run which trained the encoder.

    Args:
        arguments: "key=value", as on the command line.

    Returns:
        The arguments, with those that choose the data before them.

    Raises:
        ValueError: if the encoder does not exist, or does not know its data.
    """
    given = dict(argument.partition("=")[::2] for argument in arguments)
    if given.get("task") == "finetune" and "method" not in given:  # whose views are those of supervised training
        arguments = ["method=supervised", *arguments]
    encoder = given.get("encoder", "").strip("'\"")
    if encoder in ("", "null") or given.get("task", "pretrain") == "pretrain" or "data" in given:
        return list(arguments)
    modality, overrides = _known(encoder)
    if "data.path" in given:
        return [f"data={'text_folder' if modality == 'text' else 'folder'}", *arguments]
    if "experiment" in given:
        return list(arguments)
    if overrides is None:
        raise ValueError(f"encoder={encoder}: does not know what data it is for. Give data.path=... or data=...")
    overrides = [text for text in overrides if "data.tokenizer" not in text]  # the encoder brings its own
    chosen = [text for text in overrides if _OF_DATA.match(text) and "_target_" not in text and "${" not in text]
    return [*(text for text in chosen if text.partition("=")[0] not in given), *arguments]


def _known(encoder: str) -> tuple[str, list[str] | None]:
    """The modality of an encoder and the command line of its run, None if it was not trained by one."""
    if encoder.startswith(encoder_file.ORIGINS):
        return ("image" if encoder.startswith("timm:") else "text"), None
    file = encoder_file.find_encoder_file(encoder)
    if file.suffix == ".ckpt":
        raise ValueError(f"encoder={encoder}: a checkpoint does not say what data it is for. Give data=...")
    manifest = encoder_file.read_manifest(file)
    overrides = manifest.get("training", {}).get("overrides")
    return manifest["modality"], [str(text) for text in overrides] if isinstance(overrides, list) else None


def take_inputs(cfg: DictConfig, encoder: "Encoder", given: Sequence[str]) -> None:
    """Changes `cfg.data` to the image size, the channels, ... or the length of texts that `encoder` was trained on.

    Args:
        cfg: the composed configuration, modified in place.
        encoder: the encoder.
        given: overrides from the command line, "key=value".

    Raises:
        ValueError: if the data is of another modality, or the command line contradicts the encoder.
    """
    keys = {text.partition("=")[0].lstrip("+~") for text in given}
    modality = "image" if "image_size" in cfg.data else "text"
    if modality != encoder.modality:
        raise ValueError(f"data: it is of {modality}, and the encoder is for {encoder.modality}. Choose other data")
    names = IMAGE_SETTINGS if modality == "image" else ("max_length", "replace")
    for key in names:
        if key not in encoder.inputs:
            continue
        value = encoder.inputs[key]
        if f"data.{key}" in keys and cfg.data.get(key) != value:
            raise ValueError(f"data.{key}={cfg.data.get(key)}: the encoder is for {value}. Leave data.{key} out")
        cfg.data[key] = value
    if cfg.data.get("batch_size") == "auto":  # chosen by the number of examples, for training alone
        cfg.data.batch_size = OPEN_BATCH_SIZE


def fit_data_to_encoder(cfg: DictConfig, encoder: "Encoder", given: Sequence[str], folder: Path) -> None:
    """Changes `cfg.data` to deliver the inputs that `encoder` was trained on; see `take_inputs`.

    Args:
        cfg: the composed configuration, modified in place.
        encoder: the encoder.
        given: overrides from the command line, "key=value".
        folder: of the task, where the tokenizer of a text encoder is written.

    Raises:
        ValueError: if the data is of another modality, or the command line contradicts the encoder.
    """
    take_inputs(cfg, encoder, given)
    if encoder.tokenizer is not None:
        if any(text.lstrip("+~").startswith("data.tokenizer") for text in given):
            raise ValueError("data.tokenizer: the encoder brings its own tokenizer. Leave data.tokenizer out")
        path = folder / "tokenizer.json"
        files.write_atomically(path, encoder.tokenizer.content)
        cfg.data.tokenizer = {**cfg.data.tokenizer, "name": str(path)}
