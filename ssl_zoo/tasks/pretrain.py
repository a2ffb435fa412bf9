"""`task=pretrain`: one run, from its configuration to results.json. `pretrain` reads from top to bottom."""

import logging
import time
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import hydra
from hydra.core.hydra_config import HydraConfig
from lightning.pytorch import LightningDataModule, Trainer
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig, OmegaConf

from ssl_zoo import auto, encoder_file, ending, files
from ssl_zoo.build import build_data, build_learner, build_method, build_trainer, views_name
from ssl_zoo.config import STARTED, Run
from ssl_zoo.data.base import DataModule
from ssl_zoo.data.order import check_batch
from ssl_zoo.dry_run import dry_run
from ssl_zoo.encoder import save_encoder
from ssl_zoo.evaluators.classifier import ClassifierAccuracy, Classifies
from ssl_zoo.evaluators.proportion import Proportion
from ssl_zoo.evaluators.zero_shot import TwoTowers
from ssl_zoo.learner import Learner
from ssl_zoo.method import Method
from ssl_zoo.probe_file import PROBE_KIND, PROBE_NAME, keep_probe
from ssl_zoo.report import display, results
from ssl_zoo.report.sheet import SHEET_NAME
from ssl_zoo.training import (
    checkpoints,
    encoder_card,
    grad_cache,
    hardware,
    loggers,
    processes,
    run_folder,
    saving,
    transcript,
)
from ssl_zoo.training.budget import Budget, count_flops, first_views, resolve_budget
from ssl_zoo.training.collapse import CollapseAlarm
from ssl_zoo.training.credentials import masked
from ssl_zoo.training.environment import describe_environment, device_type, peak_memory, quiet_lightning
from ssl_zoo.training.estimate import seconds_per_step
from ssl_zoo.training.evaluation import (
    PeriodicEvaluation,
    eval_context,
    hash_content,
    identify_examples,
    keep_features,
    keep_outcomes,
    labels_of_test,
)
from ssl_zoo.training.neighbour_sheet import show_neighbours
from ssl_zoo.training.running_statistics import KeepStatistics
from ssl_zoo.training.sharding import whole_method
from ssl_zoo.training.summary import evaluate_and_log, example_counts, first_line, show_metrics

log = logging.getLogger(__name__)


def pretrain(cfg: DictConfig, folder: Path) -> None:
    """Trains until the budget is used up, evaluates the encoder before and after, and writes results.json.

    Args:
        cfg: the composed configuration; `cfg.facts` is filled with what the data turns out to be.
        folder: the run folder. A run that was interrupted in it goes on; a completed one is left as it is.

    Raises:
        FolderTaken: when the folder belongs to another run, or another process works in it.
        ValueError: for a mistake in the configuration, before any data is prepared.
    """
    if cfg.data.get("check"):
        quiet_lightning()
        given = [str(o) for o in HydraConfig.get().overrides.task]
        auto.report_only(cfg, given, HydraConfig.get().runtime.choices, folder)
        return
    with run_folder.lock_folder(folder):
        _pretrain(cfg, folder)


def _pretrain(cfg: DictConfig, folder: Path) -> None:
    # ---- 1. Decide: what the run is, whether it goes on, and whether it can work at all ----
    quiet_lightning()
    choices = HydraConfig.get().runtime.choices
    given = [str(o) for o in HydraConfig.get().overrides.task]
    origin = None
    if cfg.checkpoint is not None:
        origin = encoder_card.apply_encoder_card(cfg, given, choices)
    recorded = run_folder.recorded_config(folder)
    survey = auto.pick_data(cfg, given, choices, recorded)
    device = device_type(cfg.trainer.accelerator)
    precision, why = hardware.choose_precision(cfg.trainer.precision, device)
    hardware.prepare_torch(device, precision)
    checked = dry_run(cfg)
    auto.pick_run_budget(cfg, given, choices, survey, recorded)
    run = Run.of(cfg)
    found = run_folder.inspect_folder(folder, run.config)
    resume = found.checkpoint
    if found.is_over:
        log.info("%s: this run is complete. Give another hydra.run.dir to run it anew", folder)
        return
    saving.check_disk_space(folder, checked)
    if resume is None:
        write_first_files(cfg, folder, found, run)  # what is left if the process is killed while it prepares the data

    # ---- 2. Build: data, method, evaluators, budget, trainer, learner ----
    data = build_data(cfg)
    if origin is not None:
        encoder_card.check_inputs(origin, data.facts, str(cfg.checkpoint))
    method = build_method(cfg, None if cfg.checkpoint is None else str(cfg.checkpoint))
    if method.uses_labels and (cfg.data.get("labels_per_class") or cfg.data.get("label_fraction")):
        data.train_on_labelled()
    check_method(method, data)
    evaluators = hydra.utils.instantiate(cfg.get("evaluators") or {}, _convert_="all")
    if evaluators and isinstance(method, Classifies):
        evaluators["classifier"] = ClassifierAccuracy()

    first_batch = next(iter(data.train_dataloader()))
    few = first_views(data, first_batch)
    if cfg.trainer.grad_cache is not None:
        grad_cache.check_loss(method, few, cfg.trainer.grad_cache)
    grad_cache.warn_of_accumulation(method, few, cfg.trainer.accumulate_grad_batches, cfg.data.batch_size)
    flops = count_flops(method, few)
    examples_per_step = cfg.data.batch_size * cfg.trainer.accumulate_grad_batches
    steps_per_epoch = Fraction(data.num_train // cfg.data.batch_size, cfg.trainer.accumulate_grad_batches)
    budget = resolve_budget(dict(cfg.budget), steps_per_epoch, examples_per_step, flops * examples_per_step)
    resumed_at = checkpoints.step_of(resume) if resume else 0
    trained = checkpoints.seconds_trained(resume) if resume else 0.0
    check_budget_left(budget, resumed_at, trained, folder)
    differences = []
    if resume is not None:
        differences = run_folder.data_differences(resume, data.content, found)
        write_first_files(cfg, folder, found, run)
    if (tokenizer := getattr(data, "tokenizer", None)) is not None:  # of data with text
        files.write_atomically(folder / encoder_card.TOKENIZER_NAME, tokenizer.path.read_bytes())

    callbacks: list[Any] = []
    alarm = None
    if cfg.trainer.on_collapse is not None:
        alarm = CollapseAlarm(data, first_batch, stops=cfg.trainer.on_collapse == "stop")
        callbacks.append(alarm)
    if cfg.trainer.evaluate_every is not None:
        every = max(1, round(cfg.trainer.evaluate_every * steps_per_epoch))
        callbacks.append(PeriodicEvaluation(data, evaluators, every))
    if cfg.trainer.grad_cache is not None:
        callbacks.append(grad_cache.GradCache(cfg.trainer.grad_cache))
    if cfg.backbone.get("grad_checkpointing"):
        callbacks.append(KeepStatistics())
    trainer = build_trainer(cfg, folder, precision, budget.steps, callbacks, resumed_at)
    check_batch(data.num_train, cfg.data.batch_size, trainer.world_size)
    around = describe_environment(trainer, precision)
    if resume is not None:
        differences += run_folder.resume_differences(
            checkpoints.stored_card(resume).get("environment", {}), around, found
        )
    learner = build_learner(cfg, method, budget, trainer, checkpoint_card(cfg, run, method, data, around))

    # ---- 3. Evaluate before training: random weights are a row too ----
    metrics: dict[str, float] = {}
    if trainer.is_global_zero:
        if origin is not None:
            log.info("checkpoint=%s: %s", cfg.checkpoint, encoder_card.describe_inputs(origin))
        seconds_left = 60 * budget.minutes - trained if budget.minutes else 0.0
        if budget.steps:
            seconds_left = (budget.steps - resumed_at) * seconds_per_step(
                trainer, method, data, first_batch, cfg.trainer.grad_cache
            )
        names = {**choices, "views": views_name(cfg, choices)}
        line = first_line(names, data, method, flops, seconds_left, precision=f"{precision} ({why})", budget=budget)
        log.info("%s; %s%s", line, folder, f", resumed from {resume.name}" if resume else "")
        for line in differences:
            log.warning(line)
        for logger in trainer.loggers:
            logger.log_hyperparams(run.config)
        loaded = cfg.checkpoint is not None or bool(cfg.backbone.get("pretrained"))
        chosen = evaluators if cfg.trainer.evaluate_before else {}
        before = evaluate_and_log("before training", chosen, eval_context(trainer, method, data, "init", loaded))
        metrics |= {f"init/{name}": value for name, value in before.items()}

    # ---- 4. Train until the budget is used up ----
    with processes.watch_processes(trainer, lambda death: ending.handle_failure(cfg, folder, death)):
        trainer.fit(learner, datamodule=cast(LightningDataModule, data), ckpt_path=resume, weights_only=True)
        method = whole_method(trainer, learner)
    if learner.progress < 1:
        raise RuntimeError(
            f"training ended at step {learner.global_step} with {learner.progress:.0%} of the budget used"
        )

    # ---- 5. Record: evaluate, log and show; then results.json, last, since who is completed has all it promises ----
    if not trainer.is_global_zero:
        return
    context = eval_context(trainer, method, data, "final")
    metrics |= evaluate_and_log("after training", evaluators, context)
    for logger in trainer.loggers:
        logger.log_metrics({f"test/{name}": float(value) for name, value in metrics.items()}, learner.global_step)
    used_features = "knn/top1" in metrics or "linear/top1" in metrics  # so they have been extracted
    places = show_metrics(folder, run.method, metrics, data, context.test if used_features else None)
    show_neighbours(folder, context)
    examples = learner.batches_seen * cfg.data.batch_size
    completed: dict[str, Any] = {
        "budget": {
            "kind": budget.kind,
            "value": budget.value,
            "seconds": learner.clock.seconds,
            "steps": learner.global_step,
            "examples": examples,
            "flops": flops * examples,
        },
        "metrics": metrics,
        "counts": example_counts(metrics),
        "speed": speed(trainer, learner, cfg.data.batch_size) or found.record.get("speed", {}),
        "environment": around,
        "config": masked(OmegaConf.to_container(cfg, resolve=True)),
        "checkpoint_step": learner.global_step,
        "data_content": hash_content(data.content),
        "started": STARTED,
        "finished": time.time(),
    }
    if alarm is not None and alarm.found is not None:
        completed["collapse"] = {"what": alarm.found.what, "since": alarm.found.since}
    record = results.empty_results("completed", **(run.record() | completed))
    file = keep_encoder(cfg, folder, run, method, data, record)
    loggers.log_files(trainer.loggers, folder / SHEET_NAME, file)
    loggers.finish_loggers(trainer.loggers)
    if context.probe is not None:
        weights, accuracy = encoder_file.read_manifest(file)["weights_hash"], metrics["linear/top1"]
        assert isinstance(accuracy, Proportion)
        keep_probe(weights, folder, context.probe, data.facts["class_names"], PROBE_KIND, accuracy)
    tested_on = identify_examples(data.content, cfg.data.get("splits"), context.labelled.get("test", ()))
    keep_outcomes(folder, metrics, tested_on, labels_of_test(context))
    keep_features(folder, context, data.content, cfg.data.get("splits"), places)
    results.write_results(folder, record)
    with display.warn_if_display_fails("where the results are"):
        log.info("results: %s", folder / results.RESULTS_NAME)
        log.info(f"encoder: {file} ({file.stat().st_size / 1e6:,.1f} MB). To use it: ssl_zoo.load({str(folder)!r})")
        if context.probe is not None:
            log.info(f"probe: {folder / PROBE_NAME}. To classify files: task=predict encoder={folder} data.path=...")
        size = f"{sum(path.stat().st_size for path in checkpoints.list_checkpoints(folder)) / 1e6:,.1f} MB"
        log.info("checkpoints: %s (%s), needed only to go on with the training", folder / "checkpoints", size)


def write_first_files(cfg: DictConfig, folder: Path, found: run_folder.FolderState, run: Run) -> None:
    """Claims the folder and writes run.log and `.hydra/`, as Hydra would have done before it was known whose it is."""
    if rank_zero_only.rank:  # type: ignore[attr-defined]
        return
    run_folder.claim_run_folder(folder, found, run.config, results.empty_results("running", **run.record()))
    transcript.write_transcript(folder)
    (folder / ".hydra").mkdir(exist_ok=True)
    composed = HydraConfig.instance().cfg
    assert composed is not None
    parts = {"config": cfg, "hydra": composed, "overrides": HydraConfig.get().overrides.task}
    for name, part in parts.items():
        files.write_atomically(folder / ".hydra" / f"{name}.yaml", OmegaConf.to_yaml(part))


def check_method(method: Method, data: DataModule) -> None:
    """Raises ValueError when the data or the views cannot serve the method."""
    if (num_views := len(data.views)) < method.min_views:
        raise ValueError(
            f"views: {type(method).__name__} needs {method.min_views} views of each example, these give {num_views}. "
            "Choose others, e.g. views=simclr for images or views=windows for text"
        )
    if "num_captions" in data.facts and not isinstance(method, TwoTowers):
        raise ValueError(
            f"method: {type(method).__name__} has no text encoder for the captions of this data. "
            "Choose method=clip or method=siglip, or the same images without captions, e.g. data=cifar10"
        )
    if method.uses_labels and not data.rows_have_labels:
        raise ValueError(
            f"method: {type(method).__name__} learns from labels, and not all training examples have one. "
            "Choose labelled data or splits; for text give data.train_rows=labelled"
        )


def check_budget_left(budget: Budget, steps: int, seconds: float, folder: Path) -> None:
    """Raises FolderTaken when the run in `folder` has used more than the budget now allows.

    Args:
        budget: that of the configuration.
        steps: optimizer steps that the run has made.
        seconds: of training that it has made.
        folder: the run folder.
    """
    if budget.steps is not None and steps > budget.steps:
        allowed, used = f"{budget.steps} steps", str(steps)
    elif budget.minutes is not None and seconds > 60 * budget.minutes:
        allowed, used = f"{budget.minutes:g} minutes", f"{seconds / 60:.3g}"
    else:
        return
    raise run_folder.FolderTaken(
        f"budget.{budget.kind}={budget.value:g} is {allowed}, and the run in {folder} has made {used}. "
        "Give at least its budget to go on with it, or another hydra.run.dir"
    )


def keep_encoder(
    cfg: DictConfig, folder: Path, run: Run, method: Method, data: DataModule, record: dict[str, Any]
) -> Path:
    """Writes the encoder's file and its manifest; returns the path of the first."""
    arguments: Any = OmegaConf.to_container(cfg.backbone, resolve=True)
    card = encoder_card.make_encoder_card(run.choices["backbone"], arguments, method.backbone, data.facts)
    settings: Any = OmegaConf.to_container(cfg.data, resolve=True)
    kept = ("method", "experiment", "data", "backbone", "seed", "overrides", "budget", "metrics", "environment")
    training = {key: record[key] for key in kept}
    manifest = encoder_card.make_manifest(cfg.backbone._target_, card, method.encoder, settings, training)
    return save_encoder(folder, method.encoder, manifest, getattr(data, "tokenizer", None))


def checkpoint_card(
    cfg: DictConfig, run: Run, method: Method, data: DataModule, around: dict[str, Any]
) -> dict[str, Any]:
    """What each checkpoint says of its run, in plain values: configuration, facts of the data, encoder, environment."""
    arguments: Any = OmegaConf.to_container(cfg.backbone, resolve=True)
    backbone = run.choices["backbone"]
    return {
        "config": run.config,
        "facts": data.facts,
        "choices": {group: run.choices[group] for group in ("method", "backbone")},
        "encoder": encoder_card.make_encoder_card(backbone, arguments, method.backbone, data.facts),
        "environment": around,
        "content": data.content,
    }


def speed(trainer: Trainer, learner: Learner, batch_size: int) -> dict[str, float]:
    """Speed of the training loop with data and views, without its first step, evaluation and checkpoints.

    Returns:
        `examples_per_second`, `peak_memory_bytes`, `seconds_to_first_step`; nothing if this process made no step.
    """
    if not learner.clock.has_stepped:
        return {}
    return {
        "examples_per_second": learner.clock.batches_per_second(learner.batches_seen) * batch_size,
        "peak_memory_bytes": peak_memory(trainer),
        "seconds_to_first_step": learner.clock.first_step_at - STARTED,
    }
