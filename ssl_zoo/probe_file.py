"""The file of a linear classifier, beside the encoder whose features it classifies.

`probe.safetensors` is left by a run with `evaluators=[linear]`, by `task=evaluate` and by `task=finetune`. Its tensors
are `mean` and `scale` (D,), which standardise the features, `weight` (C, D) and `bias` (C,); its header holds

    {"format": "ssl_zoo.probe", "version": 1, "kind": "linear probe",         or "fine-tuned head"
     "classes": ["cat", "dog"], "top1": 0.93, "n": 400,                       accuracy on n test examples
     "encoder": "9f86...",                                                    the encoder's weights_hash
     "input": {"interpolation": "bilinear", "crop_ratio": 1.0}}               how its images were resized
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import safetensors.torch
from safetensors import SafetensorError

from ssl_zoo import encoder_file, files
from ssl_zoo.evaluators.linear import Probe, StandardizedProbe
from ssl_zoo.evaluators.proportion import Proportion

PROBE_NAME = "probe.safetensors"
PROBE_FORMAT = "ssl_zoo.probe"
PROBE_KIND = "linear probe"
HEAD_KIND = "fine-tuned head"
INPUT = {"interpolation": "bilinear", "crop_ratio": 1.0}
"""How data modules resize images for evaluation, whatever the encoder's own transform does."""


class KeptProbe(NamedTuple):
    """A classifier with what is known of it.

    Attributes:
        probe: maps features to logits.
        class_names: of its C outputs.
        about: what the header of its file says.
    """

    probe: StandardizedProbe
    class_names: list[str]
    about: dict[str, Any]


def keep_probe(
    weights_hash: str,
    folder: Path,
    probe: StandardizedProbe,
    class_names: Sequence[str],
    kind: str,
    accuracy: Proportion,
) -> Path:
    """Writes `probe.safetensors` atomically and returns its path.

    Args:
        weights_hash: of the encoder, see `ssl_zoo.encoder.hash_weights`.
        folder: an existing folder.
        probe: the classifier.
        class_names: of all labels.
        kind: `PROBE_KIND` or `HEAD_KIND`.
        accuracy: on the test split.
    """
    about = {
        "format": PROBE_FORMAT,
        "version": 1,
        "kind": kind,
        "classes": [class_names[label] for label in probe.probe.classes.tolist()],
        "top1": float(accuracy),
        "n": accuracy.n,
        "encoder": weights_hash,
        "input": INPUT,
    }
    tensors = {"mean": probe.mean, "scale": probe.scale, "weight": probe.probe.weight, "bias": probe.probe.bias}
    tensors |= {"classes": probe.probe.classes}
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    path = folder / PROBE_NAME
    files.write_atomically(path, safetensors.torch.save(state, metadata={"about": json.dumps(about)}))
    return path


def probe_kind(folder: Path) -> str | None:
    """The kind of the probe in a folder, None if there is none that can be read."""
    try:
        return str(json.loads(encoder_file.header_texts(folder / PROBE_NAME)["about"])["kind"])
    except (ValueError, KeyError, TypeError):
        return None


def load_probe(file: Path, encoder: str, weights_hash: str) -> KeptProbe:
    """Reads a probe.

    Args:
        file: of the probe.
        encoder: the encoder's name, for messages.
        weights_hash: of the encoder.

    Raises:
        ValueError: if there is none, it is damaged, or it was fitted on the features of another encoder.
    """
    make = f"task=evaluate encoder={encoder} data=... 'evaluators=[linear]' makes one"
    if not file.is_file():
        raise ValueError(f"encoder={encoder}: no classifier is kept with it ({file} does not exist): {make}")
    try:
        about = json.loads(encoder_file.header_texts(file)["about"])
        tensors = safetensors.torch.load_file(file)
        if about["format"] != PROBE_FORMAT or about["version"] > 1:
            raise ValueError(f"{about['format']} {about['version']}")
        classifier = Probe(tensors["weight"], tensors["bias"], tensors["classes"])
        probe = StandardizedProbe(tensors["mean"], tensors["scale"], classifier)
        class_names = [str(name) for name in about["classes"]]
        if len(class_names) != len(classifier.bias):
            raise ValueError("the number of classes is not that of its outputs")
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{file}: damaged, or no classifier of this version ({error}): {make}") from error
    if about["encoder"] != weights_hash:
        raise ValueError(f"{file}: it classifies the features of another encoder than {encoder}: {make}")
    return KeptProbe(probe, class_names, about)
