"""Loggers: every step once in the file through kills and resumption; wandb in all its failures changes nothing."""

import logging
import math
import resource
import signal
import sys
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pandas
import pytest
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import setup_globals
from hydra.utils import instantiate
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import OmegaConf

from ssl_zoo.report.curves import read_metrics
from ssl_zoo.training import loggers
from ssl_zoo.training.loggers import MetricsFile, Wandb, finish_loggers, log_files, mlflow, tensorboard
from ssl_zoo.training.saving import PeriodicCheckpoint
from ssl_zoo.training.stop_signals import Interrupted
from tests.training.test_checkpoints import train
from tests.training.test_stop_signals import SignalItself

pytestmark = pytest.mark.xdist_group("loggers")  # its fixture is costly: one worker runs the file


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [
        record.message for record in caplog.records if record.name == "ssl_zoo.training.loggers" and record.levelno > 20
    ]


# ---------------------------------------------------------------- metrics.jsonl


def test_a_row_a_call_and_a_table_by_step(tmp_path: Path) -> None:
    logger = MetricsFile(tmp_path / "run")
    logger.log_metrics({"init/knn/top1": 0.25}, 0)
    logger.log_metrics({"train/loss": 1.5, "lr": 0.1}, 10)
    logger.log_metrics({"train/loss": 2.0}, 20)
    logger.log_metrics({"train/loss": 2.5, "eval/knn/top1": torch.tensor(0.5)}, 20)
    assert logger.path.read_text().splitlines()[:2] == [
        '{"step": 0, "init/knn/top1": 0.25}',
        '{"step": 10, "train/loss": 1.5, "lr": 0.1}',
    ]
    assert read_metrics(logger.path) == {
        0: {"init/knn/top1": 0.25},
        10: {"train/loss": 1.5, "lr": 0.1},
        20: {"train/loss": 2.5, "eval/knn/top1": 0.5},
    }
    assert list(tmp_path.rglob("*.*")) == [logger.path]
    with pytest.raises(ValueError, match="needs the step"):
        logger.log_metrics({"loss": 1.0})


def test_the_documented_line_gives_the_same_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    logger = MetricsFile(tmp_path)
    for step in (10, 20, 30):
        logger.log_metrics({"train/loss": step / 7, "lr": 1e-3}, step)
    logger = MetricsFile(tmp_path, resumed_at=20)
    for step in (30, 40):
        logger.log_metrics({"train/loss": step / 9}, step)
    logger.log_metrics({"test/knn/top1": 0.5}, 40)
    line = 'pandas.read_json("metrics.jsonl", lines=True).groupby("step").last()'
    assert line in (loggers.MetricsFile.__doc__ or "")
    assert line in (Path(__file__).parents[2] / "docs" / "tutorial.md").read_text()
    table = eval(line, {"pandas": pandas})
    assert table["train/loss"].to_dict() == pytest.approx({10: 10 / 7, 20: 20 / 7, 30: 30 / 9, 40: 40 / 9})
    assert table["test/knn/top1"].dropna().to_dict() == {40: 0.5}


def test_values_that_are_not_finite_are_null(tmp_path: Path) -> None:
    logger = MetricsFile(tmp_path)
    values = {"train/loss": float("nan"), "grad": float("inf"), "low": torch.tensor(-torch.inf), "lr": 0.1}
    logger.log_metrics({"train/loss": 3.0}, 10)
    logger.log_metrics(values, 10)
    assert (
        logger.path.read_text().splitlines()[1]
        == '{"step": 10, "train/loss": null, "grad": null, "low": null, "lr": 0.1}'
    )
    row = read_metrics(logger.path)[10]  # the last value, and not the last finite one
    assert {name for name, value in row.items() if math.isnan(value)} == {"train/loss", "grad", "low"}
    assert pandas.read_json(logger.path, lines=True)["grad"].dtype == "float64"


def test_a_resumed_run_supersedes_what_was_logged_after_its_checkpoint(tmp_path: Path) -> None:
    logger = MetricsFile(tmp_path)
    for step in range(0, 50, 10):
        logger.log_metrics({"loss": step / 10}, step)
    before = logger.path.read_text()
    with logger.path.open("a") as file:
        file.write('{"step": 50, "los')  # the process was killed in the middle of a line
    assert list(read_metrics(logger.path)) == [0, 10, 20, 30, 40]
    MetricsFile(tmp_path, resumed_at=20).log_metrics({"loss": 9.0, "lr": 1.0}, 35)  # logs at other steps now
    assert logger.path.read_text().startswith(before)
    assert read_metrics(logger.path) == {
        0: {"loss": 0.0},
        10: {"loss": 1.0},
        20: {"loss": 2.0},
        35: {"loss": 9.0, "lr": 1.0},
    }
    MetricsFile(tmp_path, resumed_at=10)
    assert list(read_metrics(logger.path)) == [0, 10]
    MetricsFile(tmp_path).log_metrics({"loss": 1.0}, 5)
    assert read_metrics(logger.path) == {5: {"loss": 1.0}}


@pytest.mark.parametrize(
    "content",
    [
        None,
        b'{"step": 10, "loss": 0.5}\n\xff\n',
        b'{"loss": 0.5}\n',
        b'{"step": "x"}\n',
        b"[1]\n",
        b'{"st\n{"step": 1}\n',
    ],
    ids=str,
)
def test_a_resumed_run_with_a_damaged_file_says_so_and_begins_anew(
    content: bytes | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    if content is not None:
        (tmp_path / "metrics.jsonl").write_bytes(content)
    MetricsFile(tmp_path, resumed_at=20).log_metrics({"loss": 1.0}, 30)
    assert read_metrics(tmp_path / "metrics.jsonl") == {30: {"loss": 1.0}}
    (line,) = warnings_of(caplog)
    assert "metrics.jsonl cannot be read" in line
    assert "starts again after step 20" in line


@pytest.mark.parametrize("end", ["signal", "kill"])
def test_an_interrupted_and_resumed_run_reads_like_a_whole_one(tmp_path: Path, end: str) -> None:
    train(tmp_path / "whole", 12, logger=MetricsFile(tmp_path / "whole"), log_every_n_steps=1)
    run = tmp_path / "run"
    if end == "signal":  # saved at step 6, and that step's metrics are still logged
        saving = PeriodicCheckpoint(run / "checkpoints", every=100)
        with pytest.raises(Interrupted) as caught:
            train(run, 12, SignalItself(6, signal.SIGTERM), saving, logger=MetricsFile(run), log_every_n_steps=1)
        kept = caught.value.checkpoint
    else:  # saved at step 6 and logged up to step 8
        train(run, 8, PeriodicCheckpoint(run / "checkpoints", every=6), logger=MetricsFile(run), log_every_n_steps=1)
        kept = run / "checkpoints" / "step-00000006.ckpt"
    train(run, 12, resume=kept, logger=MetricsFile(run, resumed_at=6), log_every_n_steps=1)
    found = read_metrics(run / "metrics.jsonl")
    assert list(found) == list(range(1, 13))
    assert found == read_metrics(tmp_path / "whole" / "metrics.jsonl")


def test_a_full_disk_is_reported_once_and_mended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    logger = MetricsFile(tmp_path)
    logger.log_metrics({"loss": 1.0}, 1)
    size = logger.path.stat().st_size
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    monkeypatch.setattr(signal, "SIGXFSZ", signal.signal(signal.SIGXFSZ, signal.SIG_IGN))
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 5, limits[1]))  # room for a part of a line
    try:
        logger.log_metrics({"loss": 2.0}, 2)
        assert logger.path.stat().st_size == size
        logger.log_metrics({"loss": 3.0, "test/knn": 0.5}, 3)
        with pytest.raises(OSError, match=r"metrics\.jsonl"):  # a run without its last metrics is not complete
            finish_loggers([logger])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    finish_loggers([logger])
    assert read_metrics(logger.path) == {1: {"loss": 1.0}, 2: {"loss": 2.0}, 3: {"loss": 3.0, "test/knn": 0.5}}
    logger.log_metrics({"loss": 4.0}, 4)
    assert list(read_metrics(logger.path)) == [1, 2, 3, 4]
    (line,) = warnings_of(caplog)
    assert "metrics.jsonl could not be written: [Errno 28] No space left on device" in line


def test_rows_do_not_follow_a_link(tmp_path: Path) -> None:
    logger = MetricsFile(tmp_path)
    other = tmp_path / "other"
    logger.path.symlink_to(other)
    logger.log_metrics({"loss": 1.0}, 1)
    assert not other.exists()


def test_only_the_first_process_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fake: "FakeWandb") -> None:
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    MetricsFile(tmp_path).log_metrics({"loss": 1.0}, 1)
    logger = Wandb(tmp_path, "project")
    logger.log_metrics({"loss": 1.0}, 1)
    finish_loggers([logger])
    assert not list(tmp_path.iterdir())
    assert not fake.runs


# ---------------------------------------------------------------- wandb, faked


class FakeWandb(ModuleType):
    """What we use of wandb. `fails` names the calls that raise, `hangs` has `finish` hang."""

    def __init__(self) -> None:
        super().__init__("wandb")
        self.key, self.hangs = True, False
        self.fails: set[str] = set()
        self.runs: list[SimpleNamespace] = []

    def Settings(self, **settings: Any) -> dict[str, Any]:
        return settings

    def login(self, prompt: bool) -> bool:
        assert not prompt
        self.maybe_fail("login")
        return self.key

    def init(self, **settings: Any) -> SimpleNamespace:
        self.maybe_fail("init")
        self.maybe_fail(settings["mode"])
        rows: list[dict[str, float]] = []
        run = SimpleNamespace(settings=settings, rows=rows, url="https://example.org/run", exit_code=None)
        run.artifacts = []

        def log(row: dict[str, float]) -> None:
            if rows:
                self.maybe_fail("log")
            rows.append(row)

        def log_artifact(artifact: SimpleNamespace) -> None:
            self.maybe_fail("artifact")
            run.artifacts.append((artifact.name, artifact.type, artifact.files))

        def end(exit_code: int) -> None:
            self.maybe_fail("finish")
            time.sleep(3600 if self.hangs else 0)
            run.exit_code = exit_code

        run.log, run.finish, run.log_artifact = log, end, log_artifact
        run.define_metric = lambda name, step_metric: None
        run.config = SimpleNamespace(update=lambda params, allow_val_change: settings["config"].update(params))
        self.runs.append(run)
        return run

    def Image(self, path: str) -> str:
        return f"image {path}"

    def Artifact(self, name: str, type: str) -> SimpleNamespace:
        files: list[str] = []
        return SimpleNamespace(name=name, type=type, files=files, add_file=files.append)

    def maybe_fail(self, what: str) -> None:
        if what in self.fails:
            raise ConnectionResetError(f"{what} failed")


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeWandb:
    module = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", module)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setattr(loggers, "FINISH_SECONDS", 0.2)
    return module


def test_online_with_a_key_and_one_id_for_one_folder(tmp_path: Path, fake: FakeWandb) -> None:
    for step in (1, 2):
        logger = Wandb(tmp_path, "project", name="simclr-0", group="sweep")
        logger.log_hyperparams({"seed": 0})
        logger.log_metrics({"loss": 0.5}, step)
        logger.log_hyperparams({"budget": {"steps": 7}})
        finish_loggers([logger], failed=step == 1)
        logger.log_metrics({"loss": 0.5}, 3)
    first, second = fake.runs
    assert first.settings["mode"] == "online"
    assert first.settings["id"] == second.settings["id"] == logger.version == (tmp_path / "wandb_id").read_text()
    assert first.settings["resume"] == "allow"
    assert (first.settings["project"], first.settings["group"]) == ("project", "sweep")
    assert first.settings["config"] == {"seed": 0, "budget": {"steps": 7}}
    assert [first.rows, second.rows] == [[{"loss": 0.5, "step": 1}], [{"loss": 0.5, "step": 2}]]
    assert [first.exit_code, second.exit_code] == [1, 0]


def test_offline_without_a_key_said_in_one_line(
    tmp_path: Path, fake: FakeWandb, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    fake.key = False
    logger = Wandb(tmp_path, "project")
    logger.log_metrics({"loss": 0.5}, 1)
    assert fake.runs[0].settings["mode"] == "offline"
    (line,) = [record.message for record in caplog.records if record.name == "ssl_zoo.training.loggers"]
    assert line == f"wandb: offline. To upload: wandb login; wandb sync {tmp_path}/wandb/*run-*-{logger.version}"


def test_the_environment_decides_the_mode(tmp_path: Path, fake: FakeWandb, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    Wandb(tmp_path, "project").log_metrics({"loss": 0.5}, 1)
    assert fake.runs[0].settings["mode"] == "disabled"


def test_the_sheet_is_an_image_and_the_encoder_an_artifact_where_asked(
    tmp_path: Path, fake: FakeWandb, caplog: pytest.LogCaptureFixture
) -> None:
    sheet, encoder = tmp_path / "neighbours.png", tmp_path / "encoder.safetensors"
    for artifacts in (False, True):
        log_files([MetricsFile(tmp_path), logger := Wandb(tmp_path, "project", artifacts=artifacts)], sheet, encoder)
        sheet.touch()
        log_files([logger], sheet, encoder)
    asked = (f"encoder-{logger.version}", "model", [str(encoder)])
    assert [run.artifacts for run in fake.runs] == [[], [asked, asked]]
    assert [run.rows for run in fake.runs] == [
        [{"neighbours": f"image {sheet}"}],
        [{"neighbours": f"image {sheet}"}] * 2,
    ]
    assert all("x_disable_stats" not in run.settings["settings"] for run in fake.runs)  # system metrics are on
    fake.fails = {"artifact"}
    log_files([logger], tmp_path / "none.png", encoder)
    assert warnings_of(caplog) == [
        "wandb: artifact failed (ConnectionResetError: artifact failed); metrics.jsonl has it all"
    ]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    """Of a run without any logger."""
    return train(tmp_path_factory.mktemp("plain"), 6).state_dict()


@pytest.mark.parametrize(
    ("fails", "modes", "reports"),
    [
        ({"login"}, ["offline"], ["login failed (ConnectionResetError: login failed)"]),
        ({"online"}, ["offline"], ["starting (online) failed"]),
        ({"init"}, [], ["starting (online) failed", "starting (offline) failed"]),
        ({"log"}, ["online"], ["logging failed"]),
        ({"finish"}, ["online"], ["finish failed"]),
        ({"hang"}, ["online"], ["not finished after 0.2 s, left behind. To upload: wandb login; wandb sync"]),
        ({"absent"}, [], ["login failed (ModuleNotFoundError", "starting (offline) failed (ModuleNotFoundError"]),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, set) else "",
)
def test_no_failure_of_wandb_changes_a_run(
    tmp_path: Path,
    fake: FakeWandb,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    weights: dict[str, torch.Tensor],
    fails: set[str],
    modes: list[str],
    reports: list[str],
) -> None:
    fake.fails, fake.hangs = fails, "hang" in fails
    if "absent" in fails:
        monkeypatch.setitem(sys.modules, "wandb", None)
    logger = Wandb(tmp_path, "project")
    began = time.monotonic()
    model = train(tmp_path, 6, logger=[MetricsFile(tmp_path), logger], log_every_n_steps=1)
    finish_loggers([logger])
    assert time.monotonic() - began < 10
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    assert [run.settings["mode"] for run in fake.runs] == modes
    told = warnings_of(caplog)
    assert len(told) == len(reports)
    assert all(f"wandb: {report}" in line for report, line in zip(reports, told, strict=True))
    assert list(read_metrics(tmp_path / "metrics.jsonl")) == [1, 2, 3, 4, 5, 6]


# ---------------------------------------------------------------- secrets, the real wandb, TensorBoard


def test_wandb_gets_no_credentials(tmp_path: Path) -> None:
    logger = Wandb(tmp_path, "project")
    logger.log_hyperparams({"seed": 0, "api_key": "abc123", "pad_token": "[PAD]"})
    assert logger.config == {"seed": 0, "api_key": "***", "pad_token": "[PAD]"}


def test_the_real_wandb_offline_keeps_metrics_and_no_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_API_KEY", "0123456789abcdef" * 2 + "01234567")
    monkeypatch.setenv("SOME_SECRET", "marker-in-environment")
    monkeypatch.setattr(sys, "argv", ["run.py", "secret=marker-on-command-line"])
    for resumed_at in (0, 4):
        logger = Wandb(tmp_path, "project", name="simclr-0", group="sweep")
        logger.log_hyperparams({"seed": 0, "optimizer": {"lr": 0.1}})
        train(tmp_path, 4, logger=logger, log_every_n_steps=2)
        logger.log_metrics({"knn/top1": 0.75}, resumed_at + 4)
        finish_loggers([logger])
    wandb.teardown()
    assert not warnings_of(caplog)
    runs = list((tmp_path / "wandb").glob(f"offline-run-*-{logger.version}"))
    assert runs
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert b"train/loss" in written
    assert b"knn/top1" in written
    for secret in (b"marker-in-environment", b"marker-on-command-line", b"0123456789abcdef"):
        assert secret not in written


def test_tensorboard_writes_to_the_run_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorboard")
    train(tmp_path, 2, logger=tensorboard(tmp_path), log_every_n_steps=1)
    assert list((tmp_path / "tensorboard").glob("events.out.tfevents.*"))
    for module in ("tensorboard", "tensorboardX"):
        monkeypatch.setattr(f"lightning.fabric.loggers.tensorboard._{module.upper()}_AVAILABLE", False)
    with pytest.raises(ValueError, match=r"logger=tensorboard: not installed\. Install it: pip install tensorboard"):
        tensorboard(tmp_path)


def test_mlflow_names_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lightning.pytorch.loggers.mlflow._MLFLOW_AVAILABLE", False)
    with pytest.raises(ValueError, match=r"logger=mlflow: not installed\. Install it: pip install mlflow"):
        mlflow(tmp_path, "ssl_zoo", "run", None, {})


class FakeMLflow:
    """MLflow's client takes five seconds to import."""

    def __init__(self, experiment: str, name: str, tracking_uri: str, tags: dict[str, str]):
        self.given = experiment, name, tracking_uri, tags


KINDS = {"csv": [], "wandb": ["Wandb"], "tensorboard": ["TensorBoardLogger"], "mlflow": ["FakeMLflow"]}


@pytest.mark.parametrize(("name", "kind"), KINDS.items())
def test_each_config_builds_its_logger(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, kind: list[str]
) -> None:
    choices = {"method": "simclr", "data": "digits"}
    running = {"hydra": {"runtime": {"output_dir": str(tmp_path), "choices": choices}}}
    setup_globals()  # the resolver `hydra:`
    monkeypatch.setattr(HydraConfig.instance(), "cfg", OmegaConf.create(running))
    monkeypatch.setenv("SSL_ZOO_SWEEP", "2026-01-01-12-00-00")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr("lightning.pytorch.loggers.MLFlowLogger", FakeMLflow)
    chosen = OmegaConf.load(Path(__file__).parents[2] / "conf" / "logger" / f"{name}.yaml")
    config = OmegaConf.create({"seed": 3, "logger": chosen})
    built = [instantiate(logger, _convert_="all") for logger in config.logger.values()]
    assert [type(logger).__name__ for logger in built] == kind
    if name == "mlflow":
        tags = {"sweep": "2026-01-01-12-00-00", "folder": str(tmp_path)}
        assert built[0].given == ("ssl_zoo", "simclr-digits-3", "sqlite:///mlflow.db", tags)
        return
    assert all(Path(logger.save_dir) == tmp_path for logger in built)
    if name == "wandb":
        assert built[0].about["name"] == "simclr-digits-3"
        assert built[0].about["group"] == "2026-01-01-12-00-00"
