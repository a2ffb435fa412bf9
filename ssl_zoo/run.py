"""The entry point: compose a configuration, have its parts built, train, judge, record."""

import logging
import os
import secrets
import signal
import sys
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

from ssl_zoo import clean, ending, files, hardware, results, run_folder, settings, transcript
from ssl_zoo.build import (
    CONF,
    build_data,
    build_learner,
    build_method,
    build_trainer,
    rehearse,
    views_name,
)
from ssl_zoo.credentials import Filter, masked, masked_text
from ssl_zoo.overrides import check_key, check_type, dotted_keys, explain, nearest, quoted
from ssl_zoo.stop_signals import Interrupted, at_once

hardware.tune_allocator()

import hydra  # noqa: E402  (the allocator comes first; torch is imported later, once the configuration is right)
from hydra.core.hydra_config import HydraConfig  # noqa: E402
from hydra.errors import HydraException  # noqa: E402
from omegaconf import DictConfig, OmegaConf  # noqa: E402
from omegaconf.errors import OmegaConfBaseException  # noqa: E402

STARTED = time.time()
ONLY_PRINT = {"--help", "-h", "--hydra-help", "--version", "--cfg", "-c", "--info", "-i"}
"""Options of Hydra after which a command writes to the terminal and nothing else."""
TASKS = ("pretrain", "fill_mask")

OmegaConf.register_new_resolver("run_id", lambda: os.environ["SSL_ZOO_RUN_ID"], replace=True)


def main() -> None:
    """The command line. Exit status: 0; 1 a failed run or sweep; 2 a user's mistake; 128 + n stopped by signal n."""
    os.environ.setdefault("SSL_ZOO_RUN_ID", secrets.token_hex(2))  # made once; children of this run inherit it
    clean.tolerate_any_letter()
    if ONLY_PRINT & set(sys.argv):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `--help | head` ends without a word
    is_sweep = bool({"-m", "--multirun"} & set(sys.argv))
    sys.argv = [quoted(argument, is_sweep) for argument in sys.argv]
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors come back to us instead of being printed by Hydra
    try:
        with at_once():
            refuse_empty_folder(sys.argv)
            run_job()
    except (HydraException, OmegaConfBaseException, ValueError) as error:  # of composing; run_job keeps its own
        print(f"error: {masked_text(explain(error, CONF))}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        key = "hydra.sweep.dir" if is_sweep else "hydra.run.dir"
        print(f"error: {key} cannot be made or written: {error}. Give another folder", file=sys.stderr)
        sys.exit(2)


def refuse_empty_folder(arguments: list[str]) -> None:
    """Raises ValueError before Hydra writes a run's files among whatever lies in the working folder."""
    for argument in arguments:
        key, _, value = argument.partition("=")
        if key in ("hydra.run.dir", "hydra.sweep.dir") and value.strip("'\"") in ("", ".", "./", "null"):
            raise ValueError(f"{argument}: give a folder for the run alone, or leave {key} out for one of its own")


@hydra.main(config_path=str(CONF), config_name="config", version_base="1.3")
def run_job(cfg: DictConfig) -> None:
    """One run in the folder that Hydra made for it; ends the process unless all went well."""
    folder = Path(HydraConfig.get().runtime.output_dir)
    transcript.listen()
    for handler in logging.getLogger().handlers:
        handler.addFilter(Filter())
    try:
        check_config(cfg)
        {"pretrain": pretrain, "fill_mask": fill_mask}[cfg.task](cfg, folder)
    except (SystemExit, KeyboardInterrupt) as end:
        if int(os.environ.get("LOCAL_RANK", 0)) > 0:
            sys.exit(0)  # the first process reports; Lightning would kill it if another one failed
        if cfg.task == "pretrain":
            ending.record(cfg, folder, "interrupted")
        sys.exit(end.code if isinstance(end, Interrupted) else 128 + signal.SIGINT)
    except Exception as error:
        sys.exit(ending.fail(cfg, folder, ending.cause(error)))
    finally:
        transcript.end()


def check_config(cfg: DictConfig) -> None:
    """Refuses what composes but cannot run: unknown tasks, wrong types, several processes without a common folder."""
    if cfg.task not in TASKS:
        raise ValueError(f"task={cfg.task}: no such task{nearest(str(cfg.task), TASKS)} There are: {', '.join(TASKS)}")
    hydra_given = [str(o) for o in HydraConfig.get().overrides.hydra]
    scheduled = int(os.environ.get("WORLD_SIZE") or os.environ.get("SLURM_NTASKS") or 1) > 1
    if scheduled and not any(o.startswith("hydra.run.dir=") for o in hydra_given):
        raise ValueError("hydra.run.dir is not set: processes started by torchrun or Slurm must share one run folder")
    given = [str(o) for o in HydraConfig.get().overrides.task]
    groups = [o for o in given if (CONF / o.split("=")[0].lstrip("+~").split("@")[0]).is_dir()]
    values = [o.split("=")[0].lstrip("+~") for o in given if o not in groups]
    # The default's type is a key's schema: compose once more without the values, and compare.
    mine, default = (dotted_keys(OmegaConf.to_container(c)) for c in (cfg, hydra.compose("config", groups)))  # type: ignore[arg-type]
    for key in values:
        check_key(key, mine.get(key), default)
        check_type(key, mine.get(key), default.get(key))
    for key, hint in {"seed": int, "text": str | None, "checkpoint": str | None, "name": str | None}.items():
        settings.check(key, cfg[key], hint)
    budgets = [key for key in values if key.startswith("budget.")]
    if budgets:  # a budget on the command line replaces the default one
        cfg.budget = {kind: value if f"budget.{kind}" in budgets else None for kind, value in cfg.budget.items()}
    for key, value, least, most in (
        ("seed", cfg.seed, 0, 2**32 - 1),
        ("data.batch_size", cfg.data.batch_size, 1, 2**31),
    ):
        if not isinstance(value, int) or not least <= value <= most:
            raise ValueError(f"{key}={value}: give a whole number from {least} to {most}")


def claim(cfg: DictConfig, folder: Path, found: run_folder.Found, identity: dict[str, Any]) -> None:
    """Makes the folder this run's and writes `.hydra/`, as Hydra would have done before it was known whose it is."""
    from lightning.pytorch.utilities import rank_zero_only

    if rank_zero_only.rank:  # type: ignore[attr-defined]
        return
    run_folder.claim(folder, found, identity["config"], results.blank("running", **identity))
    transcript.begin(folder)
    (folder / ".hydra").mkdir(exist_ok=True)
    composed = HydraConfig.instance().cfg
    assert composed is not None
    parts = {"config": cfg, "hydra": composed, "overrides": HydraConfig.get().overrides.task}
    for name, part in parts.items():
        files.replace(folder / ".hydra" / f"{name}.yaml", OmegaConf.to_yaml(part))


def pretrain(cfg: DictConfig, folder: Path) -> None:
    """Trains and judges in a folder that is this run's alone. Raises: FolderTaken."""
    with run_folder.only_one(folder):
        train(cfg, folder)


def train(cfg: DictConfig, folder: Path) -> None:
    """Trains until the budget is spent, judges the encoder before and after, and writes results.json."""
    from ssl_zoo import budget, checkpoints, encoder_card, processes, saving, session, summary
    from ssl_zoo.data.order import check_batch

    session.quiet_lightning()
    choices = HydraConfig.get().runtime.choices
    origin = None
    if cfg.checkpoint is not None:
        origin = encoder_card.use(cfg, [str(o) for o in HydraConfig.get().overrides.task], choices)
    identity = ending.outline(cfg)
    found = run_folder.look(folder, identity["config"])
    resume = found.checkpoint
    if found.is_over:
        return print(f"{folder}: this run is complete. Give another hydra.run.dir to run it anew")
    device = session.device_type(cfg.trainer.accelerator)
    precision, why = hardware.choose_precision(cfg.trainer.precision, device)
    hardware.prepare_torch(device, precision)
    saving.check_room(folder, rehearse(cfg))
    if resume is None:
        claim(cfg, folder, found, identity)  # what is left if the process is killed while it prepares the data
    data = build_data(cfg)
    if origin is not None:
        encoder_card.check(origin, data.facts, str(cfg.checkpoint))
    method = build_method(cfg, None if cfg.checkpoint is None else str(cfg.checkpoint))
    session.check_method(method, data)
    evaluators = hydra.utils.instantiate(cfg.get("evaluators") or {}, _convert_="all")

    examples = cfg.data.batch_size * cfg.trainer.accumulate_grad_batches
    first = next(iter(data.train_dataloader()))
    flops = session.flops_per_example(method, data, first)
    steps_per_epoch = Fraction(data.num_train // cfg.data.batch_size, cfg.trainer.accumulate_grad_batches)
    spend = budget.resolve(dict(cfg.budget), steps_per_epoch, examples, flops * examples)
    callbacks = []
    if cfg.trainer.evaluate_every is not None:
        every = max(1, round(cfg.trainer.evaluate_every * steps_per_epoch))
        callbacks.append(session.PeriodicEvaluation(data, evaluators, every))
    resumed_at = checkpoints.step_of(resume) if resume else 0
    if spend.steps is not None and resumed_at > spend.steps:
        raise run_folder.FolderTaken(
            f"budget.{spend.kind}={spend.value:g} is {spend.steps} steps, and the run in {folder} has made "
            f"{resumed_at}. Give at least its budget to go on with it, or another hydra.run.dir"
        )
    differences = []
    if resume is not None:
        differences = session.data_differences(resume, data.content, found)
        claim(cfg, folder, found, identity)
    if "tokenizer_hash" in data.facts:
        files.replace(folder / encoder_card.TOKENIZER, data.tokenizer.path.read_bytes())
    trainer = build_trainer(cfg, folder, precision, spend.steps, callbacks, resumed_at)
    check_batch(data.num_train, cfg.data.batch_size, trainer.world_size)
    environment = session.environment(trainer, precision)
    arguments = OmegaConf.to_container(cfg.backbone, resolve=True)
    card = {
        "config": identity["config"],
        "facts": data.facts,
        "choices": {group: choices[group] for group in ("method", "backbone")},
        "encoder": encoder_card.describe(choices["backbone"], arguments, method.backbone, data.facts),  # type: ignore[arg-type]
        "environment": environment,
        "content": data.content,
    }
    if resume is not None:
        began = checkpoints.card(resume).get("environment", {})
        differences += run_folder.continuity(began, environment, found)
    learner = build_learner(cfg, method, spend, trainer, card)
    metrics: dict[str, float] = {}
    if trainer.is_global_zero:
        if origin is not None:
            print(f"checkpoint={cfg.checkpoint}: {encoder_card.summary(origin)}")
        left = 60 * spend.minutes if spend.minutes else 0.0
        if spend.steps:
            left = (spend.steps - resumed_at) * session.seconds_per_step(trainer, method, data, first)
        names = {**choices, "views": views_name(cfg, choices)}
        line = summary.first_line(names, data, method, flops, left, precision=f"{precision} ({why})", budget=spend)
        print(f"{line}; {folder}{f', resumed from {resume.name}' if resume else ''}", flush=True)
        for line in differences:
            print(line)
        for logger in trainer.loggers:
            logger.log_hyperparams(identity["config"])
        loaded = cfg.checkpoint is not None or bool(cfg.backbone.get("pretrained"))
        asked = evaluators if cfg.trainer.evaluate_before else {}
        judged = session.judged(trainer, method, data, "init", loaded)
        before = summary.evaluate_aloud("before training", asked, judged)
        metrics |= {f"init/{name}": value for name, value in before.items()}
    with processes.guarded(trainer, lambda death: ending.fail(cfg, folder, death)):
        trainer.fit(learner, datamodule=data, ckpt_path=resume, weights_only=True)
    if learner.progress < 1:
        raise RuntimeError(
            f"training ended at step {learner.global_step} with {learner.progress:.0%} of the budget spent"
        )
    if trainer.is_global_zero:
        examples = learner.batches_seen * cfg.data.batch_size
        spent = {"steps": learner.global_step, "examples": examples, "flops": flops * examples}
        identity["budget"] = {"kind": spend.kind, "value": spend.value, "seconds": learner.elapsed, **spent}
        identity["checkpoint_step"] = learner.global_step
        identity["environment"] = environment
        speed = session.speed(trainer, learner, cfg.data.batch_size, STARTED)
        identity["speed"] = speed or found.record.get("speed", {})
        identity["config"] = masked(OmegaConf.to_container(cfg, resolve=True))
        conclude(folder, identity, metrics, evaluators, trainer, learner, data)


def conclude(
    folder: Path,
    known: dict[str, Any],
    metrics: dict[str, float],
    evaluators: Any,
    trainer: Any,
    learner: Any,
    data: Any,
) -> None:
    """Evaluates the trained encoder, tells the loggers and the user, then writes results.json: `known` and the rest."""
    from ssl_zoo import loggers, session, summary

    judged = session.judged(trainer, learner.method, data, "final")
    metrics |= summary.evaluate_aloud("after training", evaluators, judged)
    known |= {"metrics": metrics, "counts": summary.counts(metrics), "started": STARTED, "finished": time.time()}
    for logger in trainer.loggers:
        logger.log_metrics({f"test/{name}": float(value) for name, value in metrics.items()}, learner.global_step)
    loggers.finish(trainer.loggers)  # before anything is shown, which may fail
    looked_at = "knn/top1" in metrics or "linear/top1" in metrics  # so the features are there
    session.show(folder, known["method"], metrics, data, judged.test if looked_at else None)
    results.write(folder, results.blank("completed", **known))  # last: who is completed has all that it promises
    with clean.only_shown("where the results are"):
        print(f"results: {folder / results.NAME}")


def fill_mask(cfg: DictConfig, folder: Path) -> None:
    """Prints the likeliest words for each blank of `text`, by the masked-token model of `checkpoint`."""
    from rich.console import Console

    from ssl_zoo import fill

    transcript.begin(folder)
    if not isinstance(cfg.text, str) or not isinstance(cfg.checkpoint, str):
        raise ValueError('task=fill_mask needs checkpoint=<run folder> and text="The movie was [MASK]."')
    hardware.prepare_torch("cpu", "32-true")
    method, tokenizer = fill.load(cfg.checkpoint)
    Console().print(fill.table(cfg.text, fill.guesses(method, tokenizer, cfg.text)))


if __name__ == "__main__":
    main()
