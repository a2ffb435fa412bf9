"""Mistakes found before hours of data: builds every part from what the data configuration promises, and discards it."""

import logging
import typing
from typing import TYPE_CHECKING, Any

import hydra
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationKeyError

from ssl_zoo import settings
from ssl_zoo.build import OURS, build_method, build_optimizer, build_views, data_module, trainer_parts

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

    from ssl_zoo.method import Method

OPEN = (
    "accelerator", "devices", "num_nodes", "strategy", "precision", "gradient_clip_val", "gradient_clip_algorithm",
    "accumulate_grad_batches", "log_every_n_steps", "deterministic", "benchmark", "detect_anomaly", "profiler",
)  # fmt: skip
"""Keys of Lightning's Trainer that a run may set; the budget, the data module and the run folder decide the others."""
IMAGE_FACTS = ("image_size", "half_size", "in_chans", "mean", "std")
"""What only data with images tells; the other facts in `conf/` are of labels and text."""


def dry_run(cfg: DictConfig) -> "Method":
    """Builds every part from the facts that the data configuration promises, and discards it.

    Networks are built on the meta device: they have shapes, and neither memory nor values. Pretrained ones are loaded,
    so that weights which do not fit are refused here.

    Returns:
        The method, whose parameters have the sizes of the real one's.

    Raises:
        ValueError: for a value that a part refuses, or parts of which one is for images and another for text.
    """
    import torch

    from ssl_zoo.training import budget, checkpoints, grad_cache, sharding

    check_settings(cfg)
    trainer = check_trainer(cfg)
    budget.chosen_budget(dict(cfg.budget))
    if cfg.checkpoint is not None:
        checkpoints.resolve_checkpoint(str(cfg.checkpoint))
    settings.check_at_least("optimizer.lr", cfg.optimizer.lr, 0, exclusive=True)
    logging.disable(logging.INFO)  # each part logs what it is when it is built for the run
    try:
        expected = cfg.copy()
        expected.facts = data_module(cfg).expected_facts
        for part in ("backbone", "method", "views"):
            check_modality(part, expected)
        views = build_views(expected)
        with torch.device("cpu" if cfg.backbone.get("pretrained") else "meta"):
            method = build_method(expected)
        check_queues(method, cfg.data.batch_size)
        if isinstance(trainer.strategy, sharding.FullySharded):
            sharding.check_shardable(method, cfg.trainer.compile)
        if cfg.trainer.grad_cache is not None:
            grad_cache.check_networks(method, cfg.trainer.grad_cache)
        if expected.facts["modality"] == "image":
            check_views(expected, views[0], method.backbone)
    finally:
        logging.disable(logging.NOTSET)
    hydra.utils.instantiate(cfg.get("evaluators") or {}, _convert_="all")
    try:
        hydra.utils.instantiate(cfg.schedule)(0.0)  # it checks its settings when it is called
    except TypeError as error:
        raise ValueError(f"schedule: {error}. Leave that key out, or see conf/schedule/ for those there are") from error
    try:
        build_optimizer(cfg)([torch.nn.Parameter(torch.zeros(1))])
    except (TypeError, ValueError) as error:
        raise ValueError(f"optimizer: {error}. Its settings are {dict(cfg.optimizer)}") from error
    return method


def check_settings(cfg: DictConfig) -> None:
    """Raises ValueError where a value is of no type that its part takes, or is set by the run itself."""
    config: Any = OmegaConf.to_container(cfg)
    for name in ("data", "views", "backbone", "method", "optimizer", "schedule", "evaluators", "logger"):
        section: Any = config.get(name) or {}
        if name in ("evaluators", "logger"):
            for key, part in section.items():
                if not isinstance(part, dict) or "_target_" not in part:
                    raise ValueError(f"{name}.{key}={part}: give one of those in conf/{name}/, by {name}={key}")
        settings.check_part(name, section)
    if "seed" in cfg.data:
        raise ValueError("data.seed is no key: give seed=...")


def check_trainer(cfg: DictConfig) -> "Trainer":
    """Checks the keys and values of `trainer`, and that processes can share a batch evenly.

    Returns:
        A trainer as they describe it.

    Raises:
        ValueError: for a key that a run does not leave open, or a value that Lightning or this package refuses.
    """
    from lightning.fabric.utilities.exceptions import MisconfigurationException
    from lightning.pytorch import Trainer

    from ssl_zoo.data.order import check_shares
    from ssl_zoo.training import cluster, environment, hardware

    hints = typing.get_type_hints(Trainer.__init__) | OURS | {"log_every_n_steps": int, "precision": str | int}
    for key, value in cfg.trainer.items():
        if key not in (*OURS, *OPEN):
            raise ValueError(
                f"trainer.{key} is no key of Lightning's Trainer that a run leaves open. Leave it out; how long a run "
                f"lasts is budget.epochs or budget.steps, what it writes logger and trainer.checkpoint_every"
            )
        settings.check_setting(f"trainer.{key}", value, hints[key])
    for key in ("callbacks", "plugins"):
        for name, part in (cfg.trainer[key] or {}).items():
            if not isinstance(part, DictConfig) or "_target_" not in part:
                raise ValueError(f"trainer.{key}.{name}={part}: give {{_target_: <class>, ...}}")
    settings.check_part("trainer", OmegaConf.to_container(cfg.trainer))
    for key in ("accumulate_grad_batches", "log_every_n_steps", "checkpoint_every", "grad_cache"):
        settings.check_at_least(f"trainer.{key}", cfg.trainer[key], 1)
    for key in ("gradient_clip_val", "evaluate_every"):
        settings.check_at_least(f"trainer.{key}", cfg.trainer[key], 0, exclusive=True)
    device = environment.device_type(cfg.trainer.accelerator)
    given = {key: value for key, value in cfg.trainer.items() if key not in OURS}
    given["precision"], _ = hardware.choose_precision(cfg.trainer.precision, device)
    cluster.check_tasks_were_started()
    cluster.check_requeue(cfg.trainer.requeue)
    try:
        given |= trainer_parts(cfg.trainer)
        trainer = Trainer(**given, logger=False, enable_checkpointing=False, enable_progress_bar=False)
    except (TypeError, ValueError, MisconfigurationException) as error:
        raise ValueError(f"trainer: {error}") from error
    if (started := cluster.started_processes()) not in (1, trainer.world_size):
        raise ValueError(
            f"trainer.devices={cfg.trainer.devices} on trainer.num_nodes={cfg.trainer.num_nodes} nodes: that makes "
            f"{trainer.world_size} processes, and torchrun or Slurm has started {started}. Give as many devices as "
            "there are processes per node, and a trainer such as ddp or ddp_cpu"
        )
    check_shares(cfg.data.batch_size, trainer.world_size)
    return trainer


def check_queues(method: "Method", batch_size: int) -> None:
    """Raises ValueError for a queue that one batch would fill more than once: most of its keys would never be used."""
    from ssl_zoo.nn.queue import Queue

    for module in method.modules():
        if isinstance(module, Queue) and (size := len(module.keys)) < batch_size:
            raise ValueError(
                f"method.queue_size={size} is less than data.batch_size={batch_size}: give {batch_size} or more"
            )


def check_modality(part: str, cfg: DictConfig) -> None:
    """Raises ValueError where `part` of the configuration asks for a fact that the data does not have."""
    try:
        OmegaConf.to_container(cfg[part], resolve=True)
    except InterpolationKeyError as error:
        if "paper_views." in str(error):  # views=auto
            raise ValueError(
                f"views=auto: this method declares no views for data of {cfg.facts['modality']}; another kind of data "
                "may be what it is for. Else choose views, such as views=weak for images or views=tokens for text"
            ) from error
        fact = str(error).partition("facts.")[2].partition("'")[0]
        wanted, other = ("images", "text") if fact in IMAGE_FACTS else ("text", "images")
        raise ValueError(
            f"{part} asks for {wanted} (facts.{fact}), and this data is {other}. Choose {part} for {other}, or data "
            f"with {wanted}, e.g. data={'digits' if wanted == 'images' else 'stdlib_docs'}"
        ) from error


def check_views(cfg: DictConfig, views: Any, backbone: Any) -> None:
    """Computes the views of a black image, and checks that the backbone takes their sizes.

    Raises:
        ValueError: for a view, such as a local crop, of another size than the backbone's own that it does not take, or
            that is too small for it (see `backbones.image.check_view_sizes`).
    """
    import torch

    from ssl_zoo.backbones.image import check_view_sizes

    side, channels = cfg.facts["image_size"], cfg.facts["in_chans"]
    made = views(torch.zeros(1, channels, side, side, dtype=torch.uint8), torch.zeros(1, dtype=torch.int64), 0, 0)
    images = {view.shape[-1]: view for view in made if view.ndim == 4}
    device = next(backbone.parameters()).device
    for size, view in images.items():
        try:
            with torch.no_grad():
                if size != side:
                    backbone.eval()(view.to(device))
        except (AssertionError, RuntimeError) as error:
            raise ValueError(
                f"views: the backbone, made for images of {side} pixels, takes no view of {size} ({error}). "
                "Choose views of one size, e.g. views=simclr, or a backbone that takes several, such as a ResNet or ViT"
            ) from error
    check_view_sizes(backbone, cfg.backbone.get("name", "?"), images, channels)
