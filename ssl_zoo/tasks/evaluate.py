"""`task=evaluate`: the evaluators on any encoder, without a training step."""

import logging
import time
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import hydra
import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf, open_dict

from ssl_zoo import encoder_file
from ssl_zoo.build import build_data
from ssl_zoo.config import CONF, STARTED, Run, dotted_keys
from ssl_zoo.dry_run import check_settings
from ssl_zoo.encoder import Encoder, hash_weights, load
from ssl_zoo.encoder_data import fit_data_to_encoder
from ssl_zoo.evaluators.base import Evaluator
from ssl_zoo.evaluators.proportion import Proportion
from ssl_zoo.method import Method
from ssl_zoo.probe_file import HEAD_KIND, INPUT, PROBE_KIND, keep_probe, probe_kind
from ssl_zoo.report import results
from ssl_zoo.report.comparable import DATA_MAY_DIFFER
from ssl_zoo.report.kept_features import FEATURES_NAME
from ssl_zoo.training import hardware, run_folder, transcript
from ssl_zoo.training.credentials import masked
from ssl_zoo.training.environment import describe_environment, device_type, quiet_lightning, single_device
from ssl_zoo.training.evaluation import (
    eval_context,
    hash_content,
    identify_examples,
    keep_features,
    keep_outcomes,
    labels_of_test,
)
from ssl_zoo.training.summary import evaluate_and_log, example_counts, show_metrics

log = logging.getLogger(__name__)

UNTRAINED_BUDGET = {"kind": "steps", "value": 0, "steps": 0, "examples": 0, "flops": 0.0, "seconds": 0.0}
"""Of an encoder that was trained elsewhere, for a budget that is not known."""


def evaluate(cfg: DictConfig, folder: Path) -> None:
    """Evaluates `cfg.encoder` and merges the metrics into the results of its run, or writes new ones to `folder`.

    They are merged if the encoder is that of a completed run, and the data is what this run was evaluated on.

    Args:
        cfg: the composed configuration; its data is changed to deliver the encoder's inputs.
        folder: for new results, and for the tokenizer of a text encoder.

    Raises:
        ValueError: for a mistake in the configuration, before any data is prepared.
    """
    # ---- 1. Decide: what is evaluated, by what, and whether it can be ----
    quiet_lightning()
    if cfg.encoder is None:
        raise ValueError("encoder: task=evaluate needs one. Give a run folder, an encoder file, timm:NAME or hf:NAME")
    given = [str(o) for o in HydraConfig.get().overrides.task]
    device = device_type(cfg.trainer.accelerator)
    precision, _ = hardware.choose_precision(cfg.trainer.precision, device)
    hardware.prepare_torch(device, precision)
    evaluators = hydra.utils.instantiate(cfg.get("evaluators") or {}, _convert_="all")
    encoder = load(str(cfg.encoder))
    method = Method(encoder.network)
    check_evaluators(evaluators, method)
    origin = completed_run(str(cfg.encoder))
    if origin is None or origin.resolve() != folder.resolve():
        refuse_other_results(folder)
    plain_data(cfg, encoder, given, folder)
    check_settings(cfg)
    transcript.write_transcript(folder)

    # ---- 2. Evaluate as at the end of a run ----
    data = build_data(cfg)
    if encoder.modality == "image" and (own := {key: encoder.inputs.get(key) for key in INPUT}) != INPUT:
        log.info(f"images are resized by {INPUT}; the encoder's own transform has {own}")
    trainer = single_device(cfg.trainer.accelerator, precision)
    if cfg.trainer.channels_last:
        method = method.to(memory_format=torch.channels_last)
    context = eval_context(trainer, method, data, "final")
    metrics = evaluate_and_log(str(cfg.encoder), evaluators, context)

    # ---- 3. Record: in the results of its run, or in new ones ----
    content = hash_content(data.content)
    examples = identify_examples(data.content, cfg.data.get("splits"), context.labelled.get("test", ()))
    labels = labels_of_test(context)
    about = {
        "environment": describe_environment(trainer, precision),
        "metrics": metrics,
        "counts": example_counts(metrics),
        "data_content": content,
    }
    if origin is not None:
        settings: Any = OmegaConf.to_container(cfg.data, resolve=True)
        if differs := what_differs(results.read_results(origin), settings, content):
            log.info(f"{origin}: its results are left as they are, since {differs}")
            origin = None
    if origin is None:
        where, record = folder, new_results(cfg, encoder, about)
        refuse_other_results(folder)
        keep_outcomes(folder, metrics, examples, labels)
        keep_features(folder, context, data.content, cfg.data.get("splits"))
        path = results.write_results(folder, record)
    else:
        with run_folder.lock_folder(origin):
            where, record = origin, merged_results(results.read_results(origin), about, given)
            keep_outcomes(origin, metrics, examples, labels, merge=True)
            if not (origin / FEATURES_NAME).exists():  # that of the run has its map, too
                keep_features(origin, context, data.content, cfg.data.get("splits"))
            path = results.write_results(origin, record)
    if context.probe is not None and probe_kind(where) == HEAD_KIND:
        log.info(f"probe: not kept, since {where} has a fine-tuned head")
    elif context.probe is not None:
        weights = encoder.manifest.get("weights_hash") or hash_weights(encoder.network.state_dict())
        accuracy = metrics["linear/top1"]
        assert isinstance(accuracy, Proportion)
        names = data.facts["class_names"]
        log.info(f"probe: {keep_probe(weights, where, context.probe, names, PROBE_KIND, accuracy)}")
    before = [f"init/{name}" for name in metrics if f"init/{name}" in record["metrics"]]
    shown = metrics | {name: proportion(record, name) for name in before}
    show_metrics(where, record["method"], shown, data, None)
    log.info(f"results: {path}{' (merged)' * (origin is not None)}")


def refuse_other_results(folder: Path) -> None:
    """Raises ValueError if the folder holds results, which new ones would replace."""
    if (folder / results.RESULTS_NAME).exists():
        raise ValueError(f"hydra.run.dir={folder}: there are results already. Give another folder")


def check_evaluators(evaluators: Mapping[str, Evaluator], method: Method) -> None:
    """Raises ValueError for no evaluator, or one that needs more of a method than its encoder."""
    if not evaluators:
        raise ValueError("evaluators=[]: nothing to evaluate. Give one or more, such as evaluators=[knn,linear]")
    for name, evaluator in evaluators.items():
        if not isinstance(method, getattr(evaluator, "needs_method", Method)):
            raise ValueError(
                f"evaluators=[{name}] needs the method that trained the encoder, and task=evaluate has the encoder "
                f"alone. Leave {name} out: the run of the method reports it"
            )


def plain_data(cfg: DictConfig, encoder: Encoder, given: list[str], folder: Path) -> None:
    """Changes `cfg` to deliver the encoder's inputs without views for training, whatever method it names."""
    fit_data_to_encoder(cfg, encoder, given, folder)
    name = "plain" if encoder.modality == "image" else "documents"
    with open_dict(cfg):
        cfg.views = OmegaConf.load(CONF / "views" / f"{name}.yaml")
        cfg.data.batch_size = 1  # so that there is no least number of training examples
        if encoder.modality == "text":
            cfg.data.train_rows = "documents"


def completed_run(encoder: str) -> Path | None:
    """The folder of the completed run whose encoder this is, None if it is of none."""
    if encoder.startswith(encoder_file.ORIGINS):
        return None
    file = encoder_file.find_encoder_file(encoder)
    is_of_run = file.name == encoder_file.WEIGHTS_NAME and results.is_complete(file.parent)
    return file.parent if is_of_run else None


def what_differs(record: Mapping[str, Any], settings: Mapping[str, Any], content: str) -> str | None:
    """Why metrics on this data do not belong beside those of a run, None if they do.

    Args:
        record: the results of the run.
        settings: of the data now.
        content: the hash of its content now.
    """
    if "data_content" not in record:
        return "they were written by an earlier version, which did not record its data"
    if record["data_content"] != content:
        return "the run has seen other data"
    before, now = dotted_keys(record["config"].get("data", {})), dotted_keys(settings)
    for key in sorted(before.keys() | now.keys()):
        old, new = before.get(key), now.get(key)
        if old != new and not isinstance(old or new, dict) and key.split(".")[0] not in DATA_MAY_DIFFER:
            return f"data.{key}={new} (was {old})"
    return None


def merged_results(record: dict[str, Any], about: Mapping[str, Any], given: list[str]) -> dict[str, Any]:
    """The results of a run with metrics added or replaced; those before training stay."""
    note = {
        "when": datetime.now().astimezone().isoformat(timespec="seconds"),
        "command": " ".join(["python run.py", *masked(given)]),
        "metrics": sorted(about["metrics"]),
        "environment": about["environment"],
    }
    return record | {
        "metrics": record["metrics"] | about["metrics"],
        "counts": record.get("counts", {}) | about["counts"],
        "evaluations": [*record.get("evaluations", []), note],
    }


def new_results(cfg: DictConfig, encoder: Encoder, about: Mapping[str, Any]) -> dict[str, Any]:
    """Results under the names and the budget with which the encoder was trained.

    An encoder that was trained elsewhere has the method "pretrained", and a budget of 0 steps.
    """
    run, training = Run.of(cfg), encoder.manifest.get("training", {})
    evaluated: Any = {key: OmegaConf.to_container(cfg[key], resolve=True) for key in ("data", "evaluators")}
    known = {
        "experiment": run.experiment,
        "method": training.get("method") or "pretrained",
        "backbone": training.get("backbone") or encoder.manifest["arguments"].get("name"),
        "seed": training.get("seed"),
        "budget": training.get("budget") or UNTRAINED_BUDGET,
        "config": {**evaluated, "encoder": str(cfg.encoder)},
        "started": STARTED,
        "finished": time.time(),
    }
    return results.empty_results("completed", **(run.record() | known | dict(about)))


def proportion(record: Mapping[str, Any], key: str) -> float:
    """A metric of results, with its number of examples where that is known."""
    value, count = record["metrics"][key], record.get("counts", {}).get(key)
    return value if value is None or count is None else Proportion(value, count)
