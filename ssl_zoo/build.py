"""Builds the parts of a run from its configuration. Only this file and run.py see a DictConfig."""

import logging
import re
import typing
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import InterpolationKeyError

from ssl_zoo import settings

PACKAGE = Path(__file__).parent
CONF = PACKAGE / "conf" if (PACKAGE / "conf").is_dir() else PACKAGE.parent / "conf"  # installed, or a checkout
OURS = {
    "checkpoint_every": int, "evaluate_before": bool, "evaluate_every": float | None, "compile": bool,
    "channels_last": bool,
}  # fmt: skip
"""Keys of `trainer` that are not Lightning's, and their types."""
OPEN = (
    "accelerator", "devices", "num_nodes", "strategy", "precision", "gradient_clip_val", "gradient_clip_algorithm",
    "accumulate_grad_batches", "log_every_n_steps", "deterministic", "benchmark", "detect_anomaly", "profiler",
)  # fmt: skip
"""Keys of Lightning's Trainer that a run may set; the budget, the data module and the run folder decide the others."""
IMAGE_FACTS = ("image_size", "half_size", "in_chans", "mean", "std")
"""What only data with images tells; the other facts in `conf/` are of labels and text."""


def rehearse(cfg: DictConfig) -> Any:
    """Raises what would else be raised once the data is prepared, hours later perhaps: builds every part from the facts
    that the settings of the data promise, and throws it away. Returns the method, which is as large as the real one.

    Raises:
        ValueError: for a value that a part refuses, or parts of which one is for images and another for text.
    """
    import torch

    from ssl_zoo import budget, checkpoints

    check_settings(cfg)
    check_trainer(cfg)
    budget.chosen(dict(cfg.budget))
    if cfg.checkpoint is not None:
        checkpoints.resolve(str(cfg.checkpoint))
    settings.at_least("optimizer.lr", cfg.optimizer.lr, 0, excluded=True)
    logging.disable(logging.INFO)  # each part tells what it is when it is built in earnest
    try:
        expected = cfg.copy()
        expected.facts = hydra.utils.instantiate(cfg.data, seed=cfg.seed, _convert_="all").expected_facts
        for part in ("backbone", "method", "views"):
            check_modality(part, expected)
        views, method = build_views(expected), build_method(expected)
        check_queues(method, cfg.data.batch_size)
        if expected.facts["modality"] == "image":
            check_sizes(method, views[0], expected.facts["in_chans"], expected.facts["image_size"])
            check_crops(expected, views[0], method.backbone)
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


def check_trainer(cfg: DictConfig) -> None:
    """Raises ValueError for a key of `trainer` that a run does not leave open, a value that Lightning or we refuse, or
    processes that cannot share a batch evenly."""
    from lightning.fabric.utilities.exceptions import MisconfigurationException
    from lightning.pytorch import Trainer

    from ssl_zoo import hardware, session
    from ssl_zoo.data.order import check_shares

    hints = typing.get_type_hints(Trainer.__init__) | OURS | {"log_every_n_steps": int, "precision": str | int}
    for key, value in cfg.trainer.items():
        if key not in (*OURS, *OPEN):
            raise ValueError(
                f"trainer.{key} is no key of Lightning's Trainer that a run leaves open. Leave it out; how long a run "
                f"lasts is budget.epochs or budget.steps, what it writes logger and trainer.checkpoint_every"
            )
        settings.check(f"trainer.{key}", value, hints[key])
    for key in ("accumulate_grad_batches", "log_every_n_steps", "checkpoint_every"):
        settings.at_least(f"trainer.{key}", cfg.trainer[key], 1)
    for key in ("gradient_clip_val", "evaluate_every"):
        settings.at_least(f"trainer.{key}", cfg.trainer[key], 0, excluded=True)
    device = session.device_type(cfg.trainer.accelerator)
    given = {key: value for key, value in cfg.trainer.items() if key not in OURS}
    given["precision"], _ = hardware.choose_precision(cfg.trainer.precision, device)
    try:
        trainer = Trainer(**given, logger=False, enable_checkpointing=False, enable_progress_bar=False)
    except (TypeError, ValueError, MisconfigurationException) as error:
        raise ValueError(f"trainer: {error}") from error
    check_shares(cfg.data.batch_size, trainer.world_size)


def check_queues(method: Any, batch_size: int) -> None:
    """Raises ValueError for a queue that one batch would fill more than once: most of its keys would never be used."""
    from ssl_zoo.memory import Queue

    for module in method.modules():
        if isinstance(module, Queue) and (size := len(module.keys)) < batch_size:
            raise ValueError(
                f"method.queue_size={size} is less than data.batch_size={batch_size}: give {batch_size} or more"
            )


def check_sizes(method: Any, views: Any, in_chans: int, image_size: int) -> None:
    """Raises ValueError where the backbone cannot take a view, such as a local crop, of another size than its own."""
    import torch

    blank = torch.zeros(1, in_chans, image_size, image_size, dtype=torch.uint8)
    made = views(blank, torch.zeros(1, dtype=torch.int64), 0, 0)
    others = {view.shape[-1]: view for view in made if view.dim() == 4 and view.shape[-1] != image_size}
    for size, view in others.items():
        try:
            with torch.no_grad():
                method.backbone.eval()(view)
        except (AssertionError, RuntimeError) as error:
            raise ValueError(
                f"views: the backbone, made for images of {image_size} pixels, takes no view of {size} ({error}). "
                "Choose views of one size, e.g. views=simclr, or a backbone that takes several, such as a ResNet or ViT"
            ) from error


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


def pin_views(cfg: DictConfig) -> None:
    """Puts the views that `views=auto` stands for in its place, and takes those away that are not used."""
    with open_dict(cfg):
        cfg.views = cfg.views.copy()
        cfg.pop("paper_views", None)


def views_name(cfg: DictConfig, choices: Any) -> str:
    """The file of conf/views that a run uses, and "auto" if the method chose it; `cfg.facts` must be known."""
    chosen = choices["views"]
    if not chosen.startswith("auto"):
        return str(chosen)
    slot = chosen.removeprefix("auto").lstrip("_") or cfg.facts["modality"]
    return f"{choices[f'views@paper_views.{slot}']} (auto)"


def check_crops(cfg: DictConfig, views: Any, backbone: Any) -> None:
    """Raises ValueError for local crops that are too small for the backbone: see `backbones.check_view_sizes`."""
    import torch

    from ssl_zoo.backbones import check_view_sizes

    side, channels = cfg.facts["image_size"], cfg.facts["in_chans"]
    made = views(torch.zeros(1, channels, side, side, dtype=torch.uint8), torch.zeros(1, dtype=torch.int64), 0, 0)
    sides = [view.shape[-1] for view in made if view.ndim == 4]
    check_view_sizes(backbone, cfg.backbone.get("name", "?"), sides, channels)


def build_views(cfg: DictConfig) -> list[Any]:
    """Those of training and, for images, the plain ones of evaluation; text is evaluated as it is."""
    kinds = [cfg.views]
    if cfg.facts["modality"] == "image":
        plain = OmegaConf.load(CONF / "views" / "plain.yaml")
        kinds.append(OmegaConf.create({"facts": cfg.facts, "views": plain}).views)
    return [hydra.utils.instantiate(views, _convert_="all") for views in kinds]


def build_data(cfg: DictConfig) -> Any:
    """The data module, prepared, with its views; fills `cfg.facts` with what the data turned out to be."""
    from ssl_zoo import session

    data = hydra.utils.instantiate(cfg.data, seed=cfg.seed, _convert_="all")
    data.prepare_data()
    data.setup()
    cfg.facts = literal(data.facts)
    pin_views(cfg)
    data.attach(*build_views(cfg))
    on_gpu = session.device_type(cfg.trainer.accelerator) == "cuda"
    if cfg.trainer.compile and on_gpu and data.facts["modality"] == "image":  # rows of text have too many lengths
        data.views.compile()
    return data


def literal(value: Any) -> Any:
    """`value` with its texts escaped, so that OmegaConf gives them back as they are: a class may be called "${x}"."""
    if isinstance(value, dict):
        return {key: literal(item) for key, item in value.items()}
    if isinstance(value, list):
        return [literal(item) for item in value]
    return re.sub(r"(\\*)\$\{", r"\1\1\\${", value) if isinstance(value, str) else value


def build_method(cfg: DictConfig, checkpoint: str | None = None) -> Any:
    """Backbone and method with the weights of this seed, or the backbone's of `checkpoint`; `cfg.facts` must be known.

    The backbone is loaded before the method is built, so that teachers, its copies, start from the same weights.
    """
    import torch

    from ssl_zoo import session

    torch.manual_seed(cfg.seed)
    backbone = hydra.utils.instantiate(cfg.backbone, _convert_="all")
    if checkpoint is not None:
        session.load_encoder(backbone, checkpoint)
    method = hydra.utils.instantiate(cfg.method, backbone=backbone, _convert_="all")
    return method.to(memory_format=torch.channels_last) if cfg.trainer.channels_last else method


def build_trainer(
    cfg: DictConfig, folder: Path, precision: str, max_steps: int | None, callbacks: list[Any], resumed_at: int = 0
) -> Any:
    """Lightning's Trainer with our checkpoints, loggers and progress bar; other keys of `trainer` pass through."""
    from lightning.pytorch import Trainer

    from ssl_zoo.checkpoints import SafeCheckpointIO
    from ssl_zoo.loggers import MetricsCSV
    from ssl_zoo.progress import ProgressBar
    from ssl_zoo.saving import PeriodicCheckpoint

    given = dict(cfg.trainer) | {"precision": precision}
    ours = {key: given.pop(key) for key in OURS}
    if max_steps is not None:  # a short run is logged ten times too
        given["log_every_n_steps"] = min(given["log_every_n_steps"], max(1, max_steps // 10))
    extra = [hydra.utils.instantiate(logger, _convert_="all") for logger in (cfg.logger or {}).values()]
    checkpoint = PeriodicCheckpoint(folder / "checkpoints", ours["checkpoint_every"])
    return Trainer(
        **given,
        max_steps=max_steps or -1,
        max_epochs=-1,  # the data never ends: the budget does
        logger=[MetricsCSV(folder, resumed_at), *extra],
        callbacks=[ProgressBar(cfg.data.batch_size), *callbacks, checkpoint],
        plugins=[SafeCheckpointIO()],
        limit_val_batches=0,
        use_distributed_sampler=False,  # the data module shares out each batch itself
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
    )


def build_optimizer(cfg: DictConfig) -> Any:
    """What makes the optimizer from parameter groups: a partial with all settings but `decay_norms_and_biases`."""
    return hydra.utils.instantiate({key: v for key, v in cfg.optimizer.items() if key != "decay_norms_and_biases"})


def build_learner(cfg: DictConfig, method: Any, spend: Any, trainer: Any, card: dict[str, Any]) -> Any:
    """The LightningModule that steps `method` until `spend` is spent; `card` goes into its checkpoints."""
    from ssl_zoo import session
    from ssl_zoo.learner import Learner

    return Learner(
        method,
        build_optimizer(cfg),
        hydra.utils.instantiate(cfg.schedule),
        seed=cfg.seed,
        total_steps=spend.steps,
        minutes=spend.minutes,
        compile_method=cfg.trainer.compile,
        decay_norms_and_biases=cfg.optimizer.get("decay_norms_and_biases", False),
        card=card,
        pauses=[callback for callback in trainer.callbacks if isinstance(callback, session.PAUSES)],
    )
