"""Loggers that can neither end nor change a run: a CSV file always, wandb and TensorBoard on request.

In all of them `step` is the number of optimizer steps finished, and only the first process writes.
"""

import csv
import io
import logging
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
from ssl_zoo.training.credentials import masked

log = logging.getLogger(__name__)

FINISH_SECONDS = 60.0
"""The longest a logger may hold up the end of a run."""


def finish_loggers(loggers: Iterable[Logger], failed: bool = False) -> None:
    """Ends the loggers that outlive `Trainer.fit` so that the final evaluation can be logged; call it last.

    Raises: OSError when metrics.csv lacks rows that the disk still refuses.
    """
    loggers = list(loggers)
    for logger in loggers:
        if isinstance(logger, Wandb):
            logger.finish(failed)
    for logger in loggers:
        if isinstance(logger, MetricsCSV):
            logger.finish()


class MetricsCSV(Logger):
    """`metrics.csv` in the run folder: a column `step`, a column per metric, a row per call.

    Cells without a value are blank. One line gives a table with one row per step:

        pandas.read_csv("metrics.csv").groupby("step").last()

    Every row is on disk when the call returns. A new metric gets a new column (the file is rewritten, which is rare).
    What a full disk refuses is reported once, held, and written as soon as there is room again.

    Args:
        folder: the run folder.
        resumed_at: the optimizer step of the checkpoint the run goes on from; rows of later steps, which will come
            again, are dropped. 0 begins a new file; so does a file that cannot be read, with a warning.
    """

    def __init__(self, folder: str | Path, resumed_at: int = 0):
        super().__init__()
        self.path = Path(folder) / "metrics.csv"
        self._columns = ["step"]
        self._intact = True
        self._held: list[dict[str, str]] = []  # rows that are not in the file yet
        self._rewind(resumed_at)

    @property
    def name(self) -> str:
        """Lightning's name of this logger."""
        return "csv"

    @property
    def version(self) -> str:
        """Lightning asks for one; a run folder has none."""
        return ""

    @property
    def save_dir(self) -> str:
        """The run folder."""
        return str(self.path.parent)

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Nothing: the run folder holds the configuration already."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Appends a row."""
        if step is None:
            raise ValueError("log_metrics needs the step")
        row = {"step": str(step)} | {name: f"{float(value):.9g}" for name, value in metrics.items()}
        self._held.append(row)
        try:
            self._write_held()
        except OSError as error:
            if self._intact:
                log.warning("%s could not be written: %s", self.path, error)
            self._intact = False

    @rank_zero_only
    def finish(self) -> None:
        """Writes what is still held. Raises: OSError when it cannot; the table then lacks its end."""
        if self._held:
            self._write_held()

    def _write_held(self) -> None:
        columns = list(dict.fromkeys([*self._columns, *(name for row in self._held for name in row)]))
        if columns != self._columns or not self._intact:
            self._write(columns, self._rows())
            self._columns, self._intact = columns, True
        with open(self.path, "a", newline="", opener=files.open_no_follow) as file:
            while self._held:
                _csv_writer(file, columns).writerow(self._held[0])
                file.flush()
                self._held.pop(0)

    @rank_zero_only
    def _rewind(self, step: int) -> None:
        rows = []
        try:
            if step and "step" not in self.path.read_text().partition("\n")[0].split(","):
                raise ValueError("it has no column step")
            rows = [row for row in self._rows() if int(row["step"]) <= step] if step else []
        except (OSError, ValueError) as error:
            log.warning("%s cannot be read (%s): it begins anew after step %d", self.path, error, step)
        self._columns = list(rows[0]) if rows else ["step"]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._write(self._columns, rows)

    def _rows(self) -> list[dict[str, str]]:
        """The complete rows of the file; a kill or a full disk may have left half a line."""
        if not self.path.exists():
            return []
        whole = self.path.read_text().rpartition("\n")[0]
        return [row for row in csv.DictReader(io.StringIO(whole)) if None not in row and None not in row.values()]

    def _write(self, columns: list[str], rows: list[dict[str, str]]) -> None:
        text = io.StringIO(newline="")
        writer = _csv_writer(text, columns)
        writer.writeheader()
        writer.writerows(rows)
        files.write_atomically(self.path, text.getvalue())


class Wandb(Logger):
    """Weights & Biases: online if there is an API key, else its own offline mode; $WANDB_MODE overrides both.

    No failure of wandb reaches the run: one to start falls back to offline, one to log switches it off with a warning,
    and `finish` gives it a minute. The run id is kept in `<folder>/wandb_id`, so that a resumed run goes on as one run.
    The command line is not recorded, because it may hold what should stay secret.

    folder: the run folder; wandb's files go to `<folder>/wandb`. group: joins the runs of a sweep.
    """

    def __init__(
        self,
        folder: str | Path,
        project: str,
        name: str | None = None,
        group: str | None = None,
        job_type: str | None = None,
        tags: Iterable[str] = (),
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
        self.config: dict[str, Any] = {}
        self._run: Any = None
        self._over = False  # finished or switched off

    @property
    def name(self) -> str | None:
        """Name of the run on wandb."""
        name: str | None = self.about["name"]
        return name

    @property
    def version(self) -> str:
        """The run id, "" before the first run in this folder."""
        kept = self.folder / "wandb_id"
        return kept.read_text() if kept.exists() else ""

    @property
    def save_dir(self) -> str:
        """The run folder."""
        return str(self.folder)

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The wandb run, begun at first use; None once it is over. Other processes get one that does nothing."""
        if self._run is None and not self._over:
            mode = "offline"
            with self._guarded("login"):
                mode = _wandb_mode()
            for attempt in dict.fromkeys([mode, "offline"]):
                if self._run is None:
                    with self._guarded(f"starting ({attempt})"):
                        self._run = self._begin(attempt)
            self._over = self._run is None
        return self._run

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Plain values only; credentials are masked."""
        params = masked(vars(params) if isinstance(params, Namespace) else params)
        self.config |= params
        if self._run is not None:
            with self._guarded("configuration"):
                self._run.config.update(params, allow_val_change=True)

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Sends metrics; a failure of wandb is a warning."""
        if (run := self.experiment) is not None:
            with self._guarded("logging"):
                run.log({**metrics, "step": step})

    def finish(self, failed: bool = False) -> None:
        """Uploads what is left, for at most `FINISH_SECONDS`."""
        run, self._run, self._over = self._run, None, True
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

    def _begin(self, mode: Any) -> Any:
        import wandb

        if not self.version:
            files.write_atomically(self.folder / "wandb_id", secrets.token_hex(4))
        quiet = wandb.Settings(silent=True, console="off", x_disable_meta=True, finish_timeout=0.8 * FINISH_SECONDS)
        run = wandb.init(
            **self.about,
            id=self.version,
            resume="allow",
            reinit="create_new",  # the default hands out a run that is still open, whoever opened it
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
        """A failure inside is reported and switches wandb off."""
        try:
            yield
        except Exception as error:  # wandb raises what it likes, sockets' errors included, and none may end a training
            self._run, self._over = None, True
            log.warning("wandb: %s failed (%s: %s); metrics.csv has it all", what, type(error).__name__, error)


def tensorboard(folder: str | Path) -> Logger:
    """Lightning's TensorBoard logger, writing to `<folder>/tensorboard`."""
    from lightning.pytorch.loggers import TensorBoardLogger

    try:
        return TensorBoardLogger(folder, name="tensorboard", version="", default_hp_metric=False)
    except ModuleNotFoundError as error:
        raise ValueError("logger=tensorboard: not installed. Install it: pip install tensorboard") from error


def _wandb_mode() -> str:
    """Returns $WANDB_MODE, or else "online" or "offline"."""
    import wandb

    return os.environ.get("WANDB_MODE") or ("online" if wandb.login(prompt=False) else "offline")


def _csv_writer(file: Any, columns: list[str]) -> "csv.DictWriter[str]":
    return csv.DictWriter(file, columns, restval="", lineterminator="\n")
