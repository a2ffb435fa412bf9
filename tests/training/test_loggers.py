"""Loggers: every step once in the CSV through kills and resumption; wandb in all its failures changes nothing."""

import errno
import logging
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

from ssl_zoo.training import loggers
from ssl_zoo.training.loggers import MetricsCSV, Wandb, finish_loggers, tensorboard
from ssl_zoo.training.saving import PeriodicCheckpoint
from ssl_zoo.training.stop_signals import Interrupted
from tests.training.test_checkpoints import train
from tests.training.test_stop_signals import SignalItself

pytestmark = pytest.mark.xdist_group("loggers")  # its fixture is costly: one worker runs the file


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [
        record.message for record in caplog.records if record.name == "ssl_zoo.training.loggers" and record.levelno > 20
    ]


# ---------------------------------------------------------------- metrics.csv


def test_new_metrics_get_new_columns(tmp_path: Path) -> None:
    csv = MetricsCSV(tmp_path / "run")
    csv.log_metrics({"init/knn/top1": 0.25}, 0)
    csv.log_metrics({"train/loss": 1.5, "lr": 0.1}, 10)
    csv.log_metrics({"train/loss": float("nan")}, 20)
    csv.log_metrics({"eval/knn/top1": torch.tensor(0.1)}, 20)
    assert (tmp_path / "run" / "metrics.csv").read_text() == (
        "step,init/knn/top1,train/loss,lr,eval/knn/top1\n0,0.25,,,\n10,,1.5,0.1,\n20,,nan,,\n20,,,,0.100000001\n"
    )
    table = pandas.read_csv(tmp_path / "run" / "metrics.csv").groupby("step").last()
    assert table["train/loss"][10] == 1.5
    assert len(table) == 3
    with pytest.raises(ValueError, match="needs the step"):
        csv.log_metrics({"loss": 1.0})


def test_a_resumed_run_drops_what_will_come_again(tmp_path: Path) -> None:
    csv = MetricsCSV(tmp_path)
    for step in range(0, 50, 10):
        csv.log_metrics({"loss": step / 10}, step)
    with csv.path.open("a") as file:
        file.write("50,0.12")  # the process was killed half way through a line
    MetricsCSV(tmp_path, resumed_at=20).log_metrics({"loss": 9.0, "lr": 1.0}, 30)
    assert csv.path.read_text() == "step,loss,lr\n0,0,\n10,1,\n20,2,\n30,9,1\n"
    MetricsCSV(tmp_path)
    assert csv.path.read_text() == "step\n"


@pytest.mark.parametrize("content", [None, b"", b"step,loss\n10,0.5\n\xff", b"loss\n0.5\n", b"step\nx\n"], ids=str)
def test_a_resumed_run_with_a_damaged_file_says_so_and_begins_anew(
    content: bytes | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    if content is not None:
        (tmp_path / "metrics.csv").write_bytes(content)
    MetricsCSV(tmp_path, resumed_at=20).log_metrics({"loss": 1.0}, 30)
    assert (tmp_path / "metrics.csv").read_text() == "step,loss\n30,1\n"
    (line,) = warnings_of(caplog)
    assert "metrics.csv cannot be read" in line
    assert "starts again after step 20" in line


@pytest.mark.parametrize("end", ["signal", "kill"])
def test_an_interrupted_and_resumed_run_writes_the_same_file_as_a_whole_one(tmp_path: Path, end: str) -> None:
    train(tmp_path / "whole", 12, logger=MetricsCSV(tmp_path / "whole"), log_every_n_steps=1)
    run = tmp_path / "run"
    if end == "signal":  # saved at step 6, and that step's metrics are still logged
        saving = PeriodicCheckpoint(run / "checkpoints", every=100)
        with pytest.raises(Interrupted) as caught:
            train(run, 12, SignalItself(6, signal.SIGTERM), saving, logger=MetricsCSV(run), log_every_n_steps=1)
        kept = caught.value.checkpoint
    else:  # saved at step 6 and logged up to step 8
        train(run, 8, PeriodicCheckpoint(run / "checkpoints", every=6), logger=MetricsCSV(run), log_every_n_steps=1)
        kept = run / "checkpoints" / "step-00000006.ckpt"
    train(run, 12, resume=kept, logger=MetricsCSV(run, resumed_at=6), log_every_n_steps=1)
    table = pandas.read_csv(run / "metrics.csv")
    assert list(table["step"]) == list(range(1, 13))
    assert (run / "metrics.csv").read_text() == (tmp_path / "whole" / "metrics.csv").read_text()


def test_a_full_disk_is_reported_once_and_mended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    csv = MetricsCSV(tmp_path)
    csv.log_metrics({"loss": 1.0}, 1)

    class Full:
        def __init__(self, file: Any, columns: list[str]):
            self.file = file

        def writerow(self, row: dict[str, str]) -> None:
            self.file.write("2,0.")
            raise OSError(errno.ENOSPC, "No space left on device")

        writerows = writerow

        def writeheader(self) -> None:
            pass

    with monkeypatch.context() as patch:
        patch.setattr(loggers, "_csv_writer", Full)
        csv.log_metrics({"loss": 2.0}, 2)
        csv.log_metrics({"loss": 3.0, "test/knn": 0.5}, 3)
        with pytest.raises(OSError, match="No space left"):  # a run without its last metrics is not complete
            finish_loggers([csv])
    finish_loggers([csv])
    assert csv.path.read_text() == "step,loss,test/knn\n1,1,\n2,2,\n3,3,0.5\n"
    csv.log_metrics({"loss": 4.0}, 4)
    assert csv.path.read_text().endswith("3,3,0.5\n4,4,\n")
    (line,) = warnings_of(caplog)
    assert "metrics.csv could not be written: [Errno 28] No space left on device" in line


def test_only_the_first_process_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fake: "FakeWandb") -> None:
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    MetricsCSV(tmp_path).log_metrics({"loss": 1.0}, 1)
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

        def log(row: dict[str, float]) -> None:
            if rows:
                self.maybe_fail("log")
            rows.append(row)

        def end(exit_code: int) -> None:
            self.maybe_fail("finish")
            time.sleep(3600 if self.hangs else 0)
            run.exit_code = exit_code

        run.log, run.finish = log, end
        run.define_metric = lambda name, step_metric: None
        run.config = SimpleNamespace(update=lambda params, allow_val_change: settings["config"].update(params))
        self.runs.append(run)
        return run

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
    model = train(tmp_path, 6, logger=[MetricsCSV(tmp_path), logger], log_every_n_steps=1)
    finish_loggers([logger])
    assert time.monotonic() - began < 10
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    assert [run.settings["mode"] for run in fake.runs] == modes
    told = warnings_of(caplog)
    assert len(told) == len(reports)
    assert all(f"wandb: {report}" in line for report, line in zip(reports, told, strict=True))
    assert list(pandas.read_csv(tmp_path / "metrics.csv")["step"]) == [1, 2, 3, 4, 5, 6]


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


@pytest.mark.parametrize(("name", "kind"), [("csv", []), ("wandb", ["Wandb"]), ("tensorboard", ["TensorBoardLogger"])])
def test_each_config_builds_its_logger(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, kind: list[str]
) -> None:
    choices = {"method": "simclr", "data": "digits"}
    running = {"hydra": {"runtime": {"output_dir": str(tmp_path), "choices": choices}}}
    setup_globals()  # the resolver `hydra:`
    monkeypatch.setattr(HydraConfig.instance(), "cfg", OmegaConf.create(running))
    monkeypatch.setenv("SSL_ZOO_SWEEP", "2026-01-01-12-00-00")
    chosen = OmegaConf.load(Path(__file__).parents[2] / "conf" / "logger" / f"{name}.yaml")
    config = OmegaConf.create({"seed": 3, "logger": chosen})
    built = [instantiate(logger, _convert_="all") for logger in config.logger.values()]
    assert [type(logger).__name__ for logger in built] == kind
    assert all(Path(logger.save_dir) == tmp_path for logger in built)
    if name == "wandb":
        assert built[0].about["name"] == "simclr-digits-3"
        assert built[0].about["group"] == "2026-01-01-12-00-00"
