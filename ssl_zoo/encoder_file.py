"""The file of a trained encoder: its weights, and a manifest that says how to build it and what its inputs are.

A run leaves two files in its folder:

    encoder.safetensors    the weights; the file's header also holds the manifest and, of a text encoder, the tokenizer
    encoder.json           the manifest alone, for people and other programs

The first is complete: it may be moved, renamed and sent to others. The manifest is

    {"format": "ssl_zoo.encoder", "version": 1,
     "modality": "image",                                                  or "text"
     "builder": "ssl_zoo.backbones.image.image_backbone",                  one of `BUILDERS`
     "arguments": {"name": "resnet18", "in_chans": 3, "image_size": 32, "small_stem": true},
     "num_features": 512, "pooling": "avg",
     "input": {"image_size": 32, "in_chans": 3, "mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25], "bits": null,
               "interpolation": "bilinear", "crop_ratio": 1.0},
     "weights_hash": "9f86...",                                            sha256, see `encoder.hash_weights`
     "training": {"method": "simclr", "data": "cifar10", "seed": 0, "budget": {}, "metrics": {}, "overrides": []},
     "environment": {"torch": "2.11.0"}, "ssl_zoo": "0.1.0", "licence": null}

and for text "input" is {"max_length": 256, "tokenizer_hash": "ab12...", "replace": {}}. Only the standard library is
imported, so that the manifest can be read without importing torch.
"""

import json
import struct
from pathlib import Path
from typing import Any

from ssl_zoo.report import results

WEIGHTS_NAME = "encoder.safetensors"
MANIFEST_NAME = "encoder.json"
FORMAT = "ssl_zoo.encoder"
VERSION = 1
IMAGE_BUILDER = "ssl_zoo.backbones.image.image_backbone"
TEXT_BUILDER = "ssl_zoo.backbones.text.TextTransformer"
TRANSFORMERS_BUILDER = "ssl_zoo.backbones.text.transformers_backbone"
TRANSFORMERS_IMAGE_BUILDER = "ssl_zoo.backbones.image_transformers.image_transformers_from_config"
BUILDERS = (IMAGE_BUILDER, TEXT_BUILDER, TRANSFORMERS_BUILDER, TRANSFORMERS_IMAGE_BUILDER)
"""What a manifest may name as its builder; any other is never imported."""
ORIGINS = ("timm:", "hf:")
"""Beginnings of `encoder=` for encoders that other libraries provide."""


def find_encoder_file(encoder: str | Path) -> Path:
    """Returns the file that `encoder=<run folder or file>` stands for; a checkpoint only if it is given itself.

    Raises:
        ValueError: if there is none; says whether the folder is that of a run that has not ended.
    """
    path = Path(encoder).expanduser()
    if path.is_file():
        return path.with_name(WEIGHTS_NAME) if path.name == MANIFEST_NAME else path
    if not path.is_dir():
        raise ValueError(
            f"encoder={encoder}: no such file or folder. Give a run folder, an {WEIGHTS_NAME}, timm:NAME or hf:NAME"
        )
    if (file := path / WEIGHTS_NAME).is_file():
        return file
    raise ValueError(f"encoder={encoder}: no {WEIGHTS_NAME} in this folder. {_why_missing(path)}")


def _why_missing(folder: Path) -> str:
    try:
        status = results.read_results(folder)["status"]
    except (OSError, ValueError):
        return "Give the folder of a completed run"
    if status == "completed":
        return f"An earlier version of ssl_zoo kept checkpoints only: give one, {folder}/checkpoints/step-*.ckpt"
    return f"The run is {status}: give its command again, with hydra.run.dir={folder}, to finish it"


def header_texts(file: Path) -> dict[str, str]:
    """Returns the texts in the header of a safetensors file, {} if it has none.

    Raises:
        ValueError: if the file is empty, truncated or of another format.
    """
    try:
        with open(file, "rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            if length > file.stat().st_size:
                raise ValueError("it is truncated")
            header = json.loads(stream.read(length))
        found = header.get("__metadata__", {})
        return {str(key): str(value) for key, value in found.items()}
    except (OSError, struct.error, ValueError, AttributeError, RecursionError) as error:
        raise ValueError(
            f"encoder={file}: damaged, or no safetensors file ({error}). Copy it again, or give another"
        ) from error


def read_manifest(file: Path) -> dict[str, Any]:
    """Returns the manifest in the header of an encoder file.

    Raises:
        ValueError: if the file is damaged, holds weights only, or was written by a later version.
    """
    header = header_texts(file)
    if "manifest" not in header:
        raise ValueError(
            f"encoder={file}: weights without a manifest, so what network they are of is not known. Give an "
            f"{WEIGHTS_NAME} that a run wrote; other weights start a run by backbone=... backbone.pretrained={file}"
        )
    try:
        manifest = json.loads(header["manifest"])
        if manifest["format"] != FORMAT or manifest["version"] > VERSION:
            raise ValueError(f"version {manifest['version']} of {manifest['format']}, this ssl_zoo reads {VERSION}")
        absent = {"modality", "builder", "arguments", "num_features", "input", "weights_hash"} - manifest.keys()
        if absent or manifest["modality"] not in ("image", "text"):
            raise ValueError(f"it has no valid {', '.join(sorted(absent)) or 'modality'}")
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ValueError(
            f"encoder={file}: its manifest cannot be used ({error}). Update ssl_zoo, or copy it again"
        ) from error
    assert isinstance(manifest, dict)
    return manifest
