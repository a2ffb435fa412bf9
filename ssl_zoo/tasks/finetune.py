"""`task=finetune`: an encoder and a classifier trained with labels, beside the same network from random weights."""

import logging
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from hydra.core.hydra_config import HydraConfig
from lightning.pytorch import Trainer
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from ssl_zoo import __version__, files
from ssl_zoo.build import build_data
from ssl_zoo.config import STARTED, Run
from ssl_zoo.dry_run import check_settings
from ssl_zoo.encoder import Encoder, build_network, hash_weights, load, save_encoder
from ssl_zoo.encoder_data import fit_data_to_encoder
from ssl_zoo.evaluators.base import EvalContext, same_rng
from ssl_zoo.evaluators.confusion import confusion_matrix, macro_f1
from ssl_zoo.evaluators.linear import StandardizedProbe
from ssl_zoo.evaluators.proportion import Proportion
from ssl_zoo.method import Method
from ssl_zoo.probe_file import HEAD_KIND, INPUT, keep_probe
from ssl_zoo.report import display, picture, results
from ssl_zoo.training import hardware, run_folder, transcript
from ssl_zoo.training.environment import describe_environment, device_type, quiet_lightning, single_device
from ssl_zoo.training.evaluation import hash_content, identify_examples, keep_outcomes
from ssl_zoo.training.finetuning import Checkpoint, LinearClassifier, Recipe, origin_of, train_classifier
from ssl_zoo.training.summary import example_counts, format_metric

log = logging.getLogger(__name__)

MAX_CLASSES_SHOWN = 12
"""Classes up to which the confusion matrix is printed."""
MAX_CLASSES_RECORDED = 200
"""Classes up to which it is in results.json."""


class FineTuned(NamedTuple):
    """A trained classifier.

    Attributes:
        network: the encoder.
        probe: its head.
        confusion: (C, C) int64, test examples by class and prediction.
        accuracy: on the test split.
    """

    network: nn.Module
    probe: StandardizedProbe
    confusion: Tensor
    accuracy: Proportion


def finetune(cfg: DictConfig, folder: Path) -> None:
    """Fine-tunes `cfg.encoder` on the labels of the data, and writes encoder, head and results to `folder`.

    Args:
        cfg: the composed configuration; its data is changed to deliver the encoder's inputs.
        folder: for everything that is written. A long training that was interrupted in it goes on.

    Raises:
        ValueError: for a mistake in the configuration, before any data is prepared; for data without labels.
    """
    with run_folder.lock_folder(folder):
        _finetune(cfg, folder)


def _finetune(cfg: DictConfig, folder: Path) -> None:
    # ---- 1. Decide: the encoder, the recipe, and whether they can work ----
    quiet_lightning()
    if cfg.encoder is None:
        raise ValueError("encoder: task=finetune needs one. Give a run folder, an encoder file, timm:NAME or hf:NAME")
    if (folder / results.RESULTS_NAME).exists():
        raise ValueError(f"hydra.run.dir={folder}: there are results already. Give another folder")
    given = [str(o) for o in HydraConfig.get().overrides.task]
    settings: Any = OmegaConf.to_container(cfg.finetune)
    with_scratch = settings.pop("scratch")
    recipe = Recipe(**settings)
    device = device_type(cfg.trainer.accelerator)
    precision, _ = hardware.choose_precision(cfg.trainer.precision, device)
    hardware.prepare_torch(device, precision)
    encoder = load(str(cfg.encoder))
    if recipe.mixes and encoder.modality == "text":
        raise ValueError("finetune.mixup, finetune.cutmix: they are for images. Leave them out")
    tuned, scratch = networks(str(cfg.encoder), encoder, recipe, cfg.seed)
    fit_data_to_encoder(cfg, encoder, given, folder)
    recorded: Any = OmegaConf.to_container(cfg.data, resolve=True)
    cfg.data.batch_size = 1  # until the number of labels is known
    check_settings(cfg)
    transcript.write_transcript(folder)

    # ---- 2. Data: the labelled examples alone ----
    data: Any = build_data(cfg)
    labelled = train_on_labels(data)
    data.batch_size, steps = recipe.sizes(labelled)
    facts = data.facts
    trainer = single_device(cfg.trainer.accelerator, precision)
    log.info(
        f"{recipe.mode} fine-tuning of {cfg.encoder} on {labelled:,} labels of {facts['num_classes']:,} classes: "
        f"{steps:,} steps of {data.batch_size} examples, {precision}; {folder}"
    )

    # ---- 3. Train and measure, then the same from random weights, all layers at the full rate ----
    weights = hash_weights(encoder.network.state_dict())
    limits = [cfg.data.get("labels_per_class"), cfg.data.get("label_fraction")]
    origin = {"encoder": weights, "data": hash_content(data.content), "labels": limits, "seed": cfg.seed}
    checkpoints = {
        name: Checkpoint(folder / f"{name}.ckpt", origin_of(recipe, steps=steps, **origin))
        for name in ("finetuned", "scratch")
    }
    began, found = time.perf_counter(), {}
    is_frozen = recipe.mode == "linear"
    torch.manual_seed(cfg.seed)
    model = LinearClassifier(tuned, facts["num_classes"], is_frozen)
    found["finetuned"] = trained(model, data, recipe, steps, recipe.layer_decay, trainer, cfg, checkpoints["finetuned"])
    seconds = time.perf_counter() - began
    if with_scratch:
        torch.manual_seed(cfg.seed)
        model = LinearClassifier(scratch, facts["num_classes"], frozen=False)
        found["scratch"] = trained(model, data, recipe, steps, 1.0, trainer, cfg, checkpoints["scratch"])

    # ---- 4. Record: the encoder, its head and, last, the results ----
    metrics: dict[str, float] = {}
    for name, one in found.items():
        metrics |= {f"{name}/top1": one.accuracy, f"{name}/macro_f1": macro_f1(one.confusion)}
    run, training = Run.of(cfg), encoder.manifest.get("training", {})
    examples = steps * data.batch_size
    budget = {"kind": "steps", "value": steps, "steps": steps, "examples": examples, "seconds": seconds}
    known = {
        "experiment": run.experiment or f"finetune {recipe.mode}",
        "method": training.get("method") or "pretrained",
        "backbone": training.get("backbone") or encoder.manifest["arguments"].get("name"),
        "budget": budget,
        "metrics": metrics,
        "counts": example_counts(metrics),
        "environment": describe_environment(trainer, precision),
        "config": {"data": recorded, "finetune": settings, "encoder": str(cfg.encoder)},
        "data_content": origin["data"],
        "labels": labelled,
        "started": STARTED,
        "finished": time.time(),
    }
    if facts["num_classes"] <= MAX_CLASSES_RECORDED:
        matrices = {name: one.confusion.tolist() for name, one in found.items()}
        known["confusion"] = {"classes": facts["class_names"], **matrices}
    record = results.empty_results("completed", **(run.record() | known))
    keep_finetuned(encoder, found["finetuned"], record, facts["class_names"], folder)
    keep_outcomes(folder, metrics, examples="")
    results.write_results(folder, record)
    for checkpoint in checkpoints.values():
        checkpoint.delete()
    show(found, metrics, facts["class_names"], folder)


def networks(name: str, encoder: Encoder, recipe: Recipe, seed: int) -> tuple[nn.Module, nn.Module]:
    """The encoder's network with drop path as the recipe has it, and the same with random weights of `seed`."""
    changes = {"drop_path_rate": recipe.drop_path} if recipe.drop_path else {}
    with same_rng():
        torch.manual_seed(seed)
        try:
            scratch = build_network(name, encoder.manifest, **changes)
        except TypeError as error:
            raise ValueError(f"finetune.drop_path={recipe.drop_path}: the network of {name} has none") from error
        tuned = build_network(name, encoder.manifest, **changes)
    tuned.load_state_dict(encoder.network.state_dict())
    return tuned, scratch


def train_on_labels(data: Any) -> int:
    """Restricts `data`, which has been built, to its labelled training examples, and returns their number.

    Raises:
        ValueError: when there are no labels to train on, or none to test on.
    """
    if not data.facts["has_labels"] or not data.facts["num_test"]:
        missing = "a labelled test split" if data.facts["has_labels"] else "labels"
        raise ValueError(f"data: task=finetune needs {missing}, and this data has none. Choose other data or splits")
    data.train_on_labelled()
    if data.num_train < 2:
        raise ValueError(f"data: {data.num_train} training label, and fine-tuning needs 2 or more")
    return int(data.num_train)


def trained(
    model: LinearClassifier,
    data: Any,
    recipe: Recipe,
    steps: int,
    layer_decay: float,
    trainer: Trainer,
    cfg: DictConfig,
    checkpoint: Checkpoint,
) -> FineTuned:
    """Trains a classifier on the training split and measures it on the test split."""
    device, precision = trainer.strategy.root_device, trainer.precision_plugin.forward_context
    model.to(device)
    if cfg.trainer.channels_last:
        model.to(memory_format=torch.channels_last)
    half = trainer.precision == "16-mixed"
    batches = partial(batches_from, data, device)
    name = checkpoint.path.stem
    with same_rng():
        train_classifier(model, batches, recipe, steps, layer_decay, precision, half, cfg.seed, checkpoint, name)
    test = EvalContext(Method(model.network), data, "final", precision).test
    probe = model.probe()
    predicted = probe.logits(test.x).argmax(1)
    confusion = confusion_matrix(test.y, predicted, data.facts["num_classes"])
    examples = identify_examples(data.content, cfg.data.get("splits"), (test.y, test.indices))
    return FineTuned(model.network, probe, confusion, Proportion.of(predicted == test.y, examples))


def batches_from(data: Any, device: torch.device, start: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The first view and the labels of each training batch, after `start` of them."""
    data.start_batch = start
    for loaded in data.train_dataloader():
        batch = data.on_after_batch_transfer(data.transfer_batch_to_device(loaded, device, 0), 0)
        yield batch.views[0], batch.labels


def keep_finetuned(
    encoder: Encoder, tuned: FineTuned, record: dict[str, Any], class_names: list[str], folder: Path
) -> None:
    """Writes the fine-tuned encoder and, beside it, its head."""
    kept = ("method", "experiment", "data", "backbone", "seed", "overrides", "budget", "metrics")
    training = {key: record[key] for key in kept} | {"before": encoder.manifest.get("training", {})}
    inputs = encoder.manifest["input"] | (INPUT if encoder.modality == "image" else {})
    manifest = {**encoder.manifest, "input": inputs, "training": training, "environment": record["environment"]}
    save_encoder(folder, tuned.network, {**manifest, "ssl_zoo": __version__}, encoder.tokenizer)
    weights = hash_weights(tuned.network.state_dict())
    keep_probe(weights, folder, tuned.probe, class_names, HEAD_KIND, tuned.accuracy)


def show(found: dict[str, FineTuned], metrics: dict[str, float], class_names: list[str], folder: Path) -> None:
    """Prints the metrics and the confusion matrix, and writes `confusion.png`."""
    with display.warn_if_display_fails("the tables"):
        title = "test metrics, accuracies with their 95 % intervals by n examples"
        table = Table("", "top1", "macro F1", "n", title=title, title_justify="left")
        for name, one in found.items():
            top1 = format_metric(metrics[f"{name}/top1"])
            table.add_row(name, top1, f"{100 * metrics[f'{name}/macro_f1']:.1f} %", f"{int(one.confusion.sum()):,}")
        Console().print(table)
        if len(class_names) <= MAX_CLASSES_SHOWN:
            names = [display.to_plain_text(name) for name in class_names]
            matrix = Table("class", *names, title="finetuned: test examples by class and prediction")
            for name, row in zip(names, found["finetuned"].confusion.tolist(), strict=True):
                matrix.add_row(name, *map(str, row))
            Console().print(matrix)
    figure = b""
    with display.warn_if_display_fails("the picture of the confusion matrix"):
        figure = picture.plot_confusion({name: one.confusion for name, one in found.items()}, class_names)
    if figure:
        files.write_atomically(folder / "confusion.png", figure)
        log.info(f"picture: {folder / 'confusion.png'}")
    log.info(f"results: {folder / results.RESULTS_NAME}")
    log.info(f"encoder and head: {folder}. To classify files: task=predict encoder={folder} data.path=...")
