"""Loggers: a file of JSON lines always, wandb on request, and neither's failures end a run; TensorBoard, MLflow.

In all of them `step` is the number of completed optimizer steps, and only rank 0 writes.
"""

import errno
import json
import logging
import math
import os
import secrets
from argparse import Namespace
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.loggers.logger import rank_zero_experiment
from lightning.pytorch.utilities import rank_zero_only

from ssl_zoo import files
from ssl_zoo.report.curves import METRICS_NAME, read_metrics
from ssl_zoo.training.credentials import masked

log = logging.getLogger(__name__)

FINISH_SECONDS = 60.0
"""Maximum time for which a logger may delay the end of a run."""


def finish_loggers(loggers: Iterable[Logger], failed: bool = False) -> None:
    """Closes the loggers. Call it last: they stay open after `Trainer.fit` to log the final evaluation.

    Raises:
        OSError: if rows of metrics.jsonl cannot be written.
    """
    loggers = list(loggers)
    for logger in loggers:
        if isinstance(logger, Wandb):
            logger.finish(failed)
    for logger in loggers:
        if isinstance(logger, MetricsFile):
            logger.finish()


def log_files(loggers: Iterable[Logger], sheet: Path, encoder: Path) -> None:
    """Gives wandb the image of neighbours, if there is one, and, where `artifacts` is set, the encoder's file."""
    for logger in loggers:
        if isinstance(logger, Wandb):
            if sheet.exists():
                logger.log_image("neighbours", sheet)
            logger.log_artifact(f"encoder-{logger.version}", "model", [encoder])


class MetricsFile(Logger):
    """Appends to `metrics.jsonl` in the run folder: one JSON object per call, with "step" and the metrics.

    Values that are not finite are null, because JSON has neither NaN nor infinity. `report.curves.read_metrics` reads
    the file; for a table with one row per step:

        pandas.read_json("metrics.jsonl", lines=True).groupby("step").last()

    Every row is on disk when the call returns. Rows that a full disk refuses are reported once, kept in memory and
    written as soon as there is room.

    Args:
        folder: the run folder.
        resumed_at: the optimizer step from which the run is resumed. A row {"step": resumed_at, "resumed": true} says
            so, and `read_metrics` drops earlier rows of later steps, which will be logged again. 0 starts a new file;
            so does, with a warning, a file that cannot be read.
    """

    def __init__(self, folder: str | Path, resumed_at: int = 0):
        super().__init__()
        self.path = Path(folder) / METRICS_NAME
        self._pending = b""  # rows that are not in the file yet
        self._last: dict[str, Any] = {}
        self._begin(resumed_at)

    @property
    def name(self) -> str:
        """Lightning's name of this logger."""
        return "jsonl"

    @property
    def version(self) -> str:
        """Required by Lightning; always empty."""
        return ""

    @property
    def save_dir(self) -> str:
        """The run folder."""
        return str(self.path.parent)

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Does nothing, because the run folder already contains the configuration."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Appends a row, unless it equals the last one."""
        if step is None:
            raise ValueError("log_metrics needs the step")
        values = {name: float(value) for name, value in metrics.items()}
        row = {"step": step} | {name: x if math.isfinite(x) else None for name, x in values.items()}
        if row != self._last:
            self._append(row)
            self._last = row

    @rank_zero_only
    def finish(self) -> None:
        """Writes the pending rows. Raises OSError if that fails."""
        if self._pending:
            self._write_pending()

    @rank_zero_only
    def _begin(self, step: int) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            if step:
                read_metrics(self.path)
                with open(self.path, "rb+", opener=files.open_no_follow) as file:
                    file.truncate(file.read().rfind(b"\n") + 1)  # removes a partial line
                self._append({"step": step, "resumed": True})
                return
        except (OSError, ValueError) as error:
            log.warning("%s cannot be read (%s): it starts again after step %d", self.path, error, step)
        self.path.unlink(missing_ok=True)

    def _append(self, row: dict[str, Any]) -> None:
        is_reported = bool(self._pending)
        self._pending += f"{json.dumps(row)}\n".encode()
        try:
            self._write_pending()
        except OSError as error:
            if not is_reported:
                log.warning("%s could not be written: %s", self.path, error)

    def _write_pending(self) -> None:
        with open(self.path, "ab", buffering=0, opener=files.open_no_follow) as file:
            end = file.tell()
            if file.write(self._pending) < len(self._pending):  # only a full disk does so
                file.truncate(end)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
        self._pending = b""


class Wandb(Logger):
    """Weights & Biases: online if there is an API key, otherwise offline; $WANDB_MODE overrides both.

    Failures of wandb never reach the run: if it cannot start online it falls back to offline mode, a failure while
    logging disables it with a warning, and `finish` waits at most `FINISH_SECONDS`. The run id is stored in
    `<folder>/wandb_id`, so that a resumed run continues the same wandb run. The command line is not recorded, because
    it may contain credentials.

    Args:
        folder: the run folder; wandb's files go to `<folder>/wandb`.
        project: wandb project.
        name: name of the run.
        group: groups the runs of a sweep.
        job_type: wandb's job type.
        tags: wandb's tags.
        artifacts: whether `log_artifact` does anything.
    """

    def __init__(
        self,
        folder: str | Path,
        project: str,
        name: str | None = None,
        group: str | None = None,
        job_type: str | None = None,
        tags: Iterable[str] = (),
        artifacts: bool = False,
    ):
        super().__init__()
        self.folder = Path(folder)
        self.about: dict[str, Any] = {
            "project": project,
            "name": name,
            "group": group,
            "job_type": job_type,
            "tags": list(tags),
        }
        self.artifacts = artifacts
        self.config: dict[str, Any] = {}
        self._run: Any = None
        self._closed = False  # finished, or disabled after a failure

    @property
    def name(self) -> str | None:
        """Name of the wandb run."""
        name: str | None = self.about["name"]
        return name

    @property
    def version(self) -> str:
        """The wandb run id, "" before the first run in this folder."""
        path = self.folder / "wandb_id"
        return path.read_text() if path.exists() else ""

    @property
    def save_dir(self) -> str:
        """The run folder."""
        return str(self.folder)

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The wandb run, started at first use; None once closed. Processes other than rank 0 get a dummy."""
        if self._run is None and not self._closed:
            mode = "offline"
            with self._guarded("login"):
                mode = _wandb_mode()
            for attempt in dict.fromkeys([mode, "offline"]):
                if self._run is None:
                    with self._guarded(f"starting ({attempt})"):
                        self._run = self._start(attempt)
            self._closed = self._run is None
        return self._run

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Records the configuration, with credentials masked; plain values only."""
        params = masked(vars(params) if isinstance(params, Namespace) else params)
        self.config |= params
        if self._run is not None:
            with self._guarded("configuration"):
                self._run.config.update(params, allow_val_change=True)

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Sends metrics to wandb; a failure is logged as a warning."""
        if (run := self.experiment) is not None:
            with self._guarded("logging"):
                run.log({**metrics, "step": step})

    def log_image(self, name: str, path: Path) -> None:
        """Sends an image file to wandb; a failure is logged as a warning."""
        if (run := self.experiment) is not None:
            with self._guarded("image"):
                import wandb

                run.log({name: wandb.Image(str(path))})

    def log_artifact(self, name: str, kind: str, paths: Iterable[Path]) -> None:
        """Sends files to wandb as one artifact, if `artifacts` is set; a failure is logged as a warning.

        Args:
            name: of the artifact, of letters, digits, "-", "_" and ".".
            kind: wandb's type of artifact.
            paths: of the files.
        """
        if self.artifacts and (run := self.experiment) is not None:
            with self._guarded("artifact"):
                import wandb

                artifact = wandb.Artifact(name, type=kind)
                for path in paths:
                    artifact.add_file(str(path))
                run.log_artifact(artifact)

    def finish(self, failed: bool = False) -> None:
        """Uploads remaining data for at most `FINISH_SECONDS` and closes the run."""
        run = self._run
        self._run = None
        self._closed = True
        if run is None:
            return

        def end() -> None:
            with self._guarded("finish"):
                run.finish(exit_code=int(failed))

        thread = Thread(target=end, daemon=True)
        thread.start()
        thread.join(FINISH_SECONDS)
        if thread.is_alive():
            log.warning("wandb: not finished after %g s, left behind. %s", FINISH_SECONDS, self._advice())

    def _start(self, mode: Any) -> Any:
        import wandb

        if not self.version:
            files.write_atomically(self.folder / "wandb_id", secrets.token_hex(4))
        quiet = wandb.Settings(silent=True, console="off", x_disable_meta=True, finish_timeout=0.8 * FINISH_SECONDS)
        run = wandb.init(
            **self.about,
            id=self.version,
            resume="allow",
            reinit="create_new",  # the default would return any run that is still open
            mode=mode,
            dir=str(self.folder),
            config=self.config,
            allow_val_change=True,
            settings=quiet,
        )
        run.define_metric("*", step_metric="step")
        log.info("wandb: %s", f"offline. {self._advice()}" if mode == "offline" else f"{mode} {run.url or ''}")
        return run

    def _advice(self) -> str:
        return f"To upload: wandb login; wandb sync {self.folder}/wandb/*run-*-{self.version}"

    @contextmanager
    def _guarded(self, what: str) -> Iterator[None]:
        """Reports an exception raised inside and disables wandb."""
        try:
            yield
        except Exception as error:  # wandb raises many types, socket errors included; none may end training
            self._run = None
            self._closed = True
            log.warning("wandb: %s failed (%s: %s); metrics.jsonl has it all", what, type(error).__name__, error)


def tensorboard(folder: str | Path) -> Logger:
    """Returns Lightning's TensorBoard logger, writing to `<folder>/tensorboard`."""
    from lightning.pytorch.loggers import TensorBoardLogger

    try:
        return TensorBoardLogger(folder, name="tensorboard", version="", default_hp_metric=False)
    except ModuleNotFoundError as error:
        raise ValueError("logger=tensorboard: not installed. Install it: pip install tensorboard") from error


def mlflow(folder: str | Path, experiment: str, name: str, tracking_uri: str | None, tags: dict[str, str]) -> Logger:
    """Returns Lightning's MLflow logger. What MLflow cannot do, such as reach its server, ends the run.

    Args:
        folder: the run folder, named in the tags.
        experiment: MLflow's experiment.
        name: name of the run.
        tracking_uri: a server or database, None for `mlflow.db` in the working folder.
        tags: of the run; those that are null are left out.
    """
    from lightning.pytorch.loggers import MLFlowLogger

    known = {key: value for key, value in {**tags, "folder": str(folder)}.items() if value is not None}
    try:
        return MLFlowLogger(experiment, name, tracking_uri=tracking_uri or "sqlite:///mlflow.db", tags=known)
    except ModuleNotFoundError as error:
        raise ValueError("logger=mlflow: not installed. Install it: pip install mlflow") from error


def _wandb_mode() -> str:
    """Returns $WANDB_MODE, or else "online" or "offline"."""
    import wandb

    return os.environ.get("WANDB_MODE") or ("online" if wandb.login(prompt=False) else "offline")
