"""The tasks as Python functions: the same configuration, checks and code as the command line.

    run = ssl_zoo.pretrain(method="simclr", data="photos", budget={"epochs": 30})
    run.metrics["linear/top1"], run.encoder.embed(["cat.jpg"])

Messages are logged: `logging.basicConfig(level="INFO", format="%(message)s")` shows them.
"""

import importlib
import os
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, open_dict
from omegaconf.errors import OmegaConfBaseException

from ssl_zoo import encoder_file, ending
from ssl_zoo.config import CONF, check_config, explain, quote, shipped_conf
from ssl_zoo.data import layout
from ssl_zoo.data.image.splits import IMAGE_ENDINGS
from ssl_zoo.data.text.files import TEXT_ENDINGS
from ssl_zoo.encoder import Encoder, load
from ssl_zoo.encoder_data import with_encoder_data
from ssl_zoo.report import results
from ssl_zoo.training import transcript
from ssl_zoo.training.stop_signals import Interrupted


class TaskRun:
    """What a task left in its folder.

    Attributes:
        folder: the run folder.
    """

    def __init__(self, folder: Path):
        self.folder = folder

    def __repr__(self) -> str:
        return f"TaskRun({str(self.folder)!r})"

    @cached_property
    def results(self) -> dict[str, Any]:
        """The contents of results.json, see `ssl_zoo.report.results`."""
        return results.read_results(self.folder)

    @property
    def metrics(self) -> dict[str, float]:
        """Metrics by name; those before training begin with "init/"."""
        metrics: dict[str, float] = self.results["metrics"]
        return metrics

    @cached_property
    def encoder(self) -> Encoder:
        """The encoder, see `ssl_zoo.load`."""
        return load(self.folder)


def pretrain(
    method: str = "simclr", data: str | Path = "digits", folder: str | Path | None = None, **overrides: Any
) -> TaskRun:
    """Trains a method, as `python run.py method=... data=...` does.

    Args:
        method: a name in conf/method.
        data: a name in conf/data, or the path of a folder or file of your own images or texts.
        folder: the run folder; a run that was interrupted in it goes on. None: a new one below outputs/.
        overrides: further keys: `backbone="resnet50"`, `seed=1`, `evaluators=["knn"]`, and those of a group as a
            mapping: `budget={"epochs": 100}`, `trainer={"devices": 2}`.

    Returns:
        The run, with its metrics and its encoder.

    Raises:
        ValueError: for a mistake in the arguments, before anything is trained.
    """
    return _run("pretrain", folder, {"method": method, **choose_data(data), **overrides})


def evaluate(
    encoder: str | Path, data: str | Path | None = None, folder: str | Path | None = None, **overrides: Any
) -> TaskRun:
    """Evaluates an encoder without training it, as `python run.py task=evaluate encoder=...` does.

    Args:
        encoder: as for `ssl_zoo.load`.
        data: as for `pretrain`; None: that of the run which trained the encoder.
        folder: for the results; None: a new one below outputs/.
        overrides: as for `pretrain`, for example `evaluators=["knn", "linear"]`.

    Returns:
        The run that has the results: the encoder's own, if it was evaluated on its own data.

    Raises:
        ValueError: for a mistake in the arguments.
    """
    run = _run("evaluate", folder, {"encoder": encoder, **choose_data(data), **overrides})
    has_results = (run.folder / results.RESULTS_NAME).exists()
    return run if has_results else TaskRun(encoder_file.find_encoder_file(encoder).parent)


def finetune(
    encoder: str | Path, data: str | Path | None = None, folder: str | Path | None = None, **overrides: Any
) -> TaskRun:
    """Fine-tunes an encoder on labels, as `python run.py task=finetune encoder=...` does.

    Args:
        encoder: as for `ssl_zoo.load`.
        data: as for `pretrain`; None: that of the run which trained the encoder.
        folder: the run folder; None: a new one below outputs/.
        overrides: as for `pretrain`, for example `{"data.labels_per_class": 10}` as `**` arguments.

    Returns:
        The run, with its metrics and the fine-tuned encoder.

    Raises:
        ValueError: for a mistake in the arguments.
    """
    return _run("finetune", folder, {"encoder": encoder, **choose_data(data), **overrides})


def choose_data(data: str | Path | None) -> dict[str, str]:
    """Returns the overrides that choose `data`: a name in conf/data, or the path of one's own images or texts.

    Raises:
        ValueError: if it is neither, or holds tables only, which may name images or hold texts.
    """
    if data is None:
        return {}
    if str(data) in {file.stem for file in (CONF / "data").glob("*.yaml")}:
        return {"data": str(data)}
    path = Path(data).expanduser()
    if not path.exists():
        raise ValueError(f"data={data}: no such data set in conf/data, and no such folder or file")
    files = layout.Walk(path).files if path.is_dir() else [path]
    endings = {layout.ending(file) for file in files}
    if not endings & (IMAGE_ENDINGS | TEXT_ENDINGS):
        raise ValueError(
            f"data={data}: holds neither image files nor .txt files, so that it does not tell whether it is of images "
            "or of text. Give data='folder' or data='text_folder', and its path as **{'data.path': ...}"
        )
    return {"data": "folder" if endings & IMAGE_ENDINGS else "text_folder", "data.path": str(path)}


def as_overrides(settings: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Returns settings as "key=value" in the grammar of the command line; mappings become keys with dots."""
    words = []
    for key, value in settings.items():
        if isinstance(value, Mapping):
            words += as_overrides(value, f"{prefix}{key}.")
        else:
            words.append(f"{prefix}{key}={_as_word(value)}")
    return words


def _as_word(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list | tuple):
        return f"[{','.join(map(_as_word, value))}]"
    if isinstance(value, str | Path):
        text = str(value)
        return text if text.isidentifier() else quote(text)
    return repr(value)


def _run(task: str, folder: str | Path | None, settings: Mapping[str, Any]) -> TaskRun:
    """Runs a task in this process; what fails is recorded in the folder as by the command line, and raised."""
    overrides = with_encoder_data([f"task={task}", *as_overrides(settings)])
    os.environ["SSL_ZOO_RUN_ID"] = secrets.token_hex(2)
    now = time.strftime("%Y-%m-%d/%H-%M-%S")
    place = Path(folder).expanduser() if folder is not None else Path(f"outputs/{now}-{os.environ['SSL_ZOO_RUN_ID']}")
    with _composed([*overrides, f"hydra.run.dir={quote(str(place))}"]) as cfg:
        check_config(cfg)
        place.mkdir(parents=True, exist_ok=True)
        function = getattr(importlib.import_module(f"ssl_zoo.tasks.{task}"), task)
        try:
            function(cfg, place)
        except Interrupted as end:
            if task == "pretrain":
                ending.record_ending(cfg, place, "interrupted")
            raise KeyboardInterrupt from end
        except Exception as error:
            cause = ending.root_cause(error)
            ending.record_failure(cfg, place, cause)
            raise cause from error
        finally:
            transcript.stop_transcript()
    return TaskRun(place)


@contextmanager
def _composed(overrides: list[str]) -> Iterator[DictConfig]:
    """Composes the configuration, and stands in for Hydra's main function while it is used."""
    importlib.import_module("ssl_zoo.run")  # registers what the configuration interpolates
    with shipped_conf():
        try:
            cfg = hydra.compose("config", overrides, return_hydra_config=True)
        except (HydraException, OmegaConfBaseException) as error:
            raise ValueError(explain(error, CONF)) from error
        config = HydraConfig.instance()
        before = config.cfg
        with open_dict(cfg):
            cfg.hydra.runtime.output_dir = str(Path(cfg.hydra.run.dir).resolve())
            config.set_config(cfg)
            cfg.pop("hydra")
        try:
            yield cfg
        finally:
            config.cfg = before
