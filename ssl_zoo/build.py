"""Builds the parts of a run from its configuration."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import hydra
from omegaconf import DictConfig, OmegaConf, open_dict

from ssl_zoo.config import CONF

if TYPE_CHECKING:  # these import torch, which a mistake on the command line does not wait for
    from lightning.pytorch import Trainer

    from ssl_zoo.data.base import DataModule
    from ssl_zoo.learner import Learner
    from ssl_zoo.method import Method
    from ssl_zoo.training.budget import Budget

OURS = {
    "checkpoint_every": int, "evaluate_before": bool, "evaluate_every": float | None, "compile": bool,
    "channels_last": bool, "callbacks": dict | None, "plugins": dict | None, "requeue": bool | Literal["auto"],
    "on_collapse": Literal["warn", "stop"] | None, "grad_cache": int | None,
    "profile": bool,
}  # fmt: skip
"""Keys of `trainer` that are not passed to Lightning as they are, and their types."""


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


def build_views(cfg: DictConfig) -> list[Any]:
    """Those of training and, for images, those of evaluation; text is evaluated as it is.

    Raises:
        ValueError: if `cfg.evaluation_views` is no file of conf/views.
    """
    kinds = [cfg.views]
    if cfg.facts["modality"] == "image":
        file = CONF / "views" / f"{cfg.evaluation_views}.yaml"
        if not file.is_file():
            there = ", ".join(sorted(path.stem for path in file.parent.glob("*.yaml")))
            raise ValueError(f"evaluation_views={cfg.evaluation_views}: no such file in conf/views. There are: {there}")
        evaluation = OmegaConf.load(file)
        kinds.append(OmegaConf.create({"facts": cfg.facts, "views": evaluation}).views)
    return [hydra.utils.instantiate(views, _convert_="all") for views in kinds]


def data_module(cfg: DictConfig) -> "DataModule":
    """The data module that `cfg.data` describes, which has read nothing yet."""
    settings: Any = OmegaConf.to_container(cfg.data, resolve=True)
    settings.pop("check", None)  # it says what the task does, not what the data is
    module: DataModule = hydra.utils.instantiate(literal(settings), seed=cfg.seed, _convert_="all")
    return module


def build_data(cfg: DictConfig) -> "DataModule":
    """The data module, prepared, with its views; fills `cfg.facts` with what the data turned out to be."""
    from ssl_zoo.training import environment

    data = data_module(cfg)
    data.prepare_data()
    data.setup()
    cfg.facts = literal(data.facts)
    pin_views(cfg)
    data.attach(*build_views(cfg))
    on_gpu = environment.device_type(cfg.trainer.accelerator) == "cuda"
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


def build_method(cfg: DictConfig, checkpoint: str | None = None) -> "Method":
    """Backbone and method with the weights of this seed, or the backbone's of `checkpoint`; `cfg.facts` must be known.

    The backbone is loaded before the method is built, so that teachers, its copies, start from the same weights.
    """
    import torch

    from ssl_zoo.training import checkpoints

    torch.manual_seed(cfg.seed)
    backbone = hydra.utils.instantiate(cfg.backbone, _convert_="all")
    if checkpoint is not None:
        checkpoints.load_encoder(backbone, checkpoint)
    method = hydra.utils.instantiate(cfg.method, backbone=backbone, _convert_="all")
    return method.to(memory_format=torch.channels_last) if cfg.trainer.channels_last else method


def trainer_parts(trainer: DictConfig) -> dict[str, Any]:
    """The strategy, plugins and callbacks that `trainer` names, as arguments of Lightning's Trainer.

    Where nobody says otherwise, processes are those that torchrun or srun has started, and else Lightning starts them.
    """
    from lightning.pytorch.plugins.environments import ClusterEnvironment, LightningEnvironment, SLURMEnvironment

    from ssl_zoo.training import cluster

    parts: dict[str, Any] = hydra.utils.instantiate(
        {key: trainer[key] for key in ("strategy", "plugins", "callbacks")}, _convert_="all"
    )
    plugins, callbacks = (list((parts[key] or {}).values()) for key in ("plugins", "callbacks"))
    if cluster.slurm_job() and not cluster.has_agent() and not any(isinstance(p, ClusterEnvironment) for p in plugins):
        if cluster.is_started_by_srun():
            cluster.set_tasks_per_node()
            plugins.append(SLURMEnvironment(auto_requeue=False))  # its own requeueing would not wait for our checkpoint
        else:
            plugins.append(LightningEnvironment())
    return parts | {"plugins": plugins, "callbacks": callbacks}


def build_trainer(
    cfg: DictConfig, folder: Path, precision: str, max_steps: int | None, callbacks: list[Any], resumed_at: int = 0
) -> "Trainer":
    """Lightning's Trainer with our checkpoints, loggers and progress bar; other keys of `trainer` pass through."""
    from lightning.pytorch import Trainer

    from ssl_zoo.training.checkpoints import SafeCheckpointIO
    from ssl_zoo.training.loggers import MetricsFile
    from ssl_zoo.training.progress_bar import ProgressBar
    from ssl_zoo.training.saving import PeriodicCheckpoint
    from ssl_zoo.training.step_profile import StepProfile

    given = dict(cfg.trainer) | {"precision": precision}
    ours = {key: given.pop(key) for key in OURS}
    parts = trainer_parts(cfg.trainer)
    if max_steps is not None:  # a short run is logged ten times too
        given["log_every_n_steps"] = min(given["log_every_n_steps"], max(1, max_steps // 10))
    extra = [hydra.utils.instantiate(logger, _convert_="all") for logger in (cfg.get("logger") or {}).values()]
    checkpoint = PeriodicCheckpoint(folder / "checkpoints", ours["checkpoint_every"])
    if ours["profile"]:
        given["profiler"] = StepProfile()
    return Trainer(
        **given | {"strategy": parts["strategy"]},
        max_steps=max_steps or -1,
        max_epochs=-1,  # the data never ends: the budget does
        logger=[MetricsFile(folder, resumed_at), *extra],
        callbacks=[ProgressBar(cfg.data.batch_size), *callbacks, *parts["callbacks"], checkpoint],
        plugins=[SafeCheckpointIO(), *parts["plugins"]],
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


def build_learner(
    cfg: DictConfig, method: "Method", budget: "Budget", trainer: "Trainer", card: dict[str, Any]
) -> "Learner":
    """The LightningModule that steps `method` until `budget` is used up; `card` goes into its checkpoints."""
    from ssl_zoo.clock import Clock
    from ssl_zoo.learner import Learner
    from ssl_zoo.training import evaluation

    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]  # Lightning does not declare it
    return Learner(
        method,
        build_optimizer(cfg),
        hydra.utils.instantiate(cfg.schedule),
        seed=cfg.seed,
        total_steps=budget.steps,
        minutes=budget.minutes,
        compile_method=cfg.trainer.compile,
        decay_norms_and_biases=cfg.optimizer.get("decay_norms_and_biases", False),
        card=card,
        clock=Clock([callback for callback in callbacks if isinstance(callback, evaluation.PAUSES)]),
    )
