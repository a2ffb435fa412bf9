"""`task=predict`: the classes of new files by the classifier that is kept with an encoder, as `predictions.csv`."""

import csv
import io
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from torch import Tensor

from ssl_zoo import encoder_file, files
from ssl_zoo.data.examples import Example, Examples, describe, open_examples
from ssl_zoo.data.image.decode import UnreadableImage
from ssl_zoo.data.layout import abbreviate
from ssl_zoo.dry_run import check_settings
from ssl_zoo.encoder import Encoder, hash_weights, load
from ssl_zoo.encoder_data import take_inputs
from ssl_zoo.evaluators.base import frozen
from ssl_zoo.probe_file import PROBE_NAME, KeptProbe, load_probe
from ssl_zoo.training import hardware, transcript
from ssl_zoo.training.environment import device_type, quiet_lightning, single_device

log = logging.getLogger(__name__)

PREDICTIONS_NAME = "predictions.csv"
BATCH_SIZE = 256
"""Examples per forward pass, as in evaluation."""
READING = ("path", "root", "image_column", "label_column", "caption_column", "name", "text_column", "documents")
"""Keys of `data` that say what the examples are; the encoder says the rest."""


class Predicted(NamedTuple):
    """What is known of one example.

    Attributes:
        example: the image or text.
        probabilities: (C,), None for an image that cannot be read.
        error: why it cannot be read.
    """

    example: Example
    probabilities: Tensor | None
    error: str = ""


def predict(cfg: DictConfig, folder: Path) -> None:
    """Writes `predictions.csv` for the files of `cfg.data`.

    Args:
        cfg: the composed configuration.
        folder: where the file is written.

    Raises:
        ValueError: for an encoder without a classifier, files that are not there, or none that can be read.
    """
    quiet_lightning()
    if cfg.encoder is None:
        raise ValueError("encoder: task=predict needs one. Give a run folder, or an encoder file beside a probe")
    device = device_type(cfg.trainer.accelerator)
    precision, _ = hardware.choose_precision(cfg.trainer.precision, device)
    hardware.prepare_torch(device, precision)
    encoder, kept = load_classifier(str(cfg.encoder), cfg.probe)
    take_inputs(cfg, encoder, [str(o) for o in HydraConfig.get().overrides.task])
    check_settings(cfg)
    examples = open_examples(encoder.modality, **{key: cfg.data[key] for key in READING if key in cfg.data})
    transcript.write_transcript(folder)
    about = kept.about
    log.info(
        f"{describe(examples)}; {about['kind']} of {len(kept.class_names)} classes, test accuracy {about['top1']:.1%}"
    )

    trainer = single_device(cfg.trainer.accelerator, precision)
    encoder.to(trainer.strategy.root_device)
    if cfg.trainer.channels_last:
        encoder.to(memory_format=torch.channels_last)
    found = predictions(encoder, kept, listed(examples), trainer.precision_plugin.forward_context)
    errors = write_predictions(folder / PREDICTIONS_NAME, found, kept.class_names, examples)
    if errors:
        named = abbreviate(errors)
        log.warning(f"{len(errors):,} of {len(examples):,} could not be read and have no prediction: {named}")
    log.info(f"predictions: {folder / PREDICTIONS_NAME}")


def load_classifier(name: str, place: str | None = None) -> tuple[Encoder, KeptProbe]:
    """Loads an encoder and the classifier of its features.

    Args:
        name: what `ssl_zoo.load` takes.
        place: the classifier's file or its folder; None: beside the encoder.

    Returns:
        The encoder, which resizes images as they were when the classifier was fitted; the classifier.

    Raises:
        ValueError: if one of them does not exist, or they do not belong together.
    """
    if place is not None:
        file = Path(place).expanduser()
        file = file / PROBE_NAME if file.is_dir() else file
    elif name.startswith(encoder_file.ORIGINS):
        raise ValueError(
            f"encoder={name}: no classifier is kept with it. task=evaluate encoder={name} data=... "
            "'evaluators=[linear]' makes one: give its folder as probe=..."
        )
    else:
        file = encoder_file.find_encoder_file(name).with_name(PROBE_NAME)
    encoder = load(name)
    weights = encoder.manifest.get("weights_hash") or hash_weights(encoder.network.state_dict())
    kept = load_probe(file, name, weights)
    if encoder.modality == "image":
        encoder.inputs = {**encoder.inputs, **kept.about["input"]}
    return encoder, kept


def listed(examples: Examples) -> Iterable[Example]:
    """The examples, sorted by path if they are files."""
    return sorted(examples.read(), key=lambda example: example.path or "") if examples.have_paths else examples.read()


@torch.no_grad()
def predictions(
    encoder: Encoder,
    kept: KeptProbe,
    examples: Iterable[Example],
    precision: Callable[[], AbstractContextManager[Any]],
    batch_size: int = BATCH_SIZE,
) -> Iterator[Predicted]:
    """Classifies examples as they come; memory does not grow with their number.

    Args:
        encoder: on its device.
        kept: its classifier.
        examples: to classify.
        precision: makes the autocast context that the encoder runs under.
        batch_size: examples per forward pass.
    """
    remaining = iter(examples)

    def transformed(example: Example) -> Tensor | str:
        try:
            return encoder.transform(example.load())
        except (UnreadableImage, OSError) as error:
            return f"{error}"

    with ThreadPoolExecutor() as pool, frozen(encoder):
        while batch := list(islice(remaining, batch_size)):
            made = list(pool.map(transformed, batch))
            inputs = [x for x in made if isinstance(x, Tensor)]
            rows: Iterator[Tensor] = iter(())
            if inputs:
                with precision():
                    features = encoder(encoder.collate(inputs).to(encoder.device))
                rows = iter(kept.probe.logits(features.float().cpu()).softmax(1))
            for example, x in zip(batch, made, strict=True):
                yield Predicted(example, None, x) if isinstance(x, str) else Predicted(example, next(rows))


def write_predictions(
    path: Path, found: Iterable[Predicted], class_names: Sequence[str], examples: Examples
) -> list[str]:
    """Writes the table as it grows, and lets it appear when it is complete.

    Returns:
        Why each example that could not be read has no prediction.

    Raises:
        ValueError: if none could be read.
    """
    total, errors, done = len(examples), [], 0
    first = "path" if examples.have_paths else "index"
    with files.open_atomically(path) as file:
        text = io.TextIOWrapper(file, encoding="utf-8", newline="")
        table = csv.writer(text)
        table.writerow([first, "class", "probability", *class_names])
        for number, (example, probabilities, error) in enumerate(found):
            name = example.path if examples.have_paths else number
            if probabilities is None:
                errors.append(error)
                table.writerow([name, "", "", *[""] * len(class_names)])
            else:
                best = int(probabilities.argmax())
                shares = [f"{share:.6g}" for share in probabilities.tolist()]
                table.writerow([name, class_names[best], shares[best], *shares])
            if 10 * (number + 1) // total > done:
                done = 10 * (number + 1) // total
                log.info(f"{10 * done:3d} %  {number + 1:,} of {total:,}")
        if len(errors) == total:
            raise ValueError(f"data.path={examples.place}: nothing there can be read, such as {errors[0]}")
        text.detach()  # flushes, and leaves closing to the other
    return errors
