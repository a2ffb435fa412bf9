"""Stop signals: saved at a step boundary, the right exit, handlers put back, and resumed to the same weights."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.utils.data import DataLoader

from ssl_zoo.training.checkpoints import latest_checkpoint, load_checkpoint, step_of
from ssl_zoo.training.saving import PeriodicCheckpoint
from ssl_zoo.training.stop_signals import STOP_SIGNALS, Interrupted, StopSignals, stop_immediately
from tests.training.test_checkpoints import Stream, Tiny, in_child, names, train

STEPS = 60


class Slow(Callback):
    """Makes a step last, and leaves a file once training has begun."""

    def __init__(self, folder: Path, seconds: float = 0.02):
        self.mark, self.seconds = folder / f"begun-{os.environ.get('RANK', 0)}", seconds

    def on_before_zero_grad(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step >= 3:
            self.mark.write_text(str(os.getpid()))
        time.sleep(self.seconds)


class SignalItself(Callback):
    """In the middle of step `step` (counted from 1)."""

    def __init__(self, step: int, number: int):
        self.step, self.number = step, number

    def on_before_optimizer_step(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step == self.step - 1:
            os.kill(os.getpid(), self.number)


def wait_for(path: Path, seconds: float = 60) -> None:
    limit = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < limit, f"{path.name} did not appear within {seconds} s"
        time.sleep(0.01)


def ended(child: int, seconds: float = 30) -> int:
    """The exit code of a forked child; it is killed, and the test fails, if it does not end in time."""
    limit = time.monotonic() + seconds
    while time.monotonic() < limit:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    pytest.fail(f"did not end within {seconds} s")


def training(folder: Path, **settings: Any) -> Callable[[], None]:
    """The work of a child: trains and exits as Interrupted says."""

    def work() -> None:
        try:
            train(folder, STEPS, Slow(folder), PeriodicCheckpoint(folder / "checkpoints", every=1000), **settings)
        except Interrupted as stop:
            (folder / f"stop-{os.environ.get('RANK', 0)}").write_text(f"{stop.signal.name} {stop.checkpoint}")
            os._exit(stop.code)

    return work


SCRIPT = """
import sys
from pathlib import Path
from tests.training.test_stop_signals import PeriodicCheckpoint, Slow, train
folder = Path(sys.argv[1])
train(folder, 60, Slow(folder), PeriodicCheckpoint(folder / "checkpoints", every=1000))
"""


def test_a_process_told_to_stop_saves_and_a_resumed_one_ends_with_the_same_weights(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(tmp_path)], cwd=root, stderr=subprocess.PIPE, text=True
    )
    try:
        wait_for(tmp_path / "begun-0")
        process.terminate()
        _, said = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 128 + signal.SIGTERM
    assert "SIGTERM: stopped after step" in said
    assert "Traceback" not in said
    (name,) = names(tmp_path / "checkpoints")
    assert 3 <= step_of(name) < STEPS
    again = train(
        tmp_path,
        STEPS,
        PeriodicCheckpoint(tmp_path / "checkpoints", every=1000),
        resume=tmp_path / "checkpoints" / name,
    )
    whole = train(tmp_path / "whole", STEPS)
    assert all(torch.equal(weights, again.state_dict()[key]) for key, weights in whole.state_dict().items())


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_the_step_in_progress_is_finished_and_saved(
    tmp_path: Path, number: signal.Signals, capfd: pytest.CaptureFixture[str]
) -> None:
    handlers = [signal.getsignal(s) for s in STOP_SIGNALS]
    whole = train(tmp_path / "whole", 5)
    with pytest.raises(Interrupted) as caught:
        train(tmp_path, 20, SignalItself(5, number), PeriodicCheckpoint(tmp_path / "checkpoints", every=3))
    assert caught.value.signal is number
    assert caught.value.code == 128 + number
    assert names(tmp_path / "checkpoints") == ["step-00000003.ckpt", "step-00000005.ckpt"]
    assert caught.value.checkpoint == latest_checkpoint(tmp_path)
    saved = load_checkpoint(tmp_path / "checkpoints" / "step-00000005.ckpt")
    assert saved["global_step"] == 5
    assert all(torch.equal(weights, saved["state_dict"][key]) for key, weights in whole.state_dict().items())
    assert [signal.getsignal(s) for s in STOP_SIGNALS] == handlers
    assert f"{number.name}: the step in progress is finished and saved, then the run stops" in capfd.readouterr().err


def test_a_second_interrupt_stops_at_once(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    class Twice(Callback):
        def on_before_optimizer_step(self, trainer: Trainer, *_: Any) -> None:
            if trainer.global_step == 4:
                os.kill(os.getpid(), signal.SIGINT)
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(10)  # a signal ends it

    with pytest.raises(Interrupted) as caught:
        train(tmp_path, 20, Twice(), PeriodicCheckpoint(tmp_path / "checkpoints", every=3))
    assert caught.value.code == 130
    assert names(tmp_path / "checkpoints") == ["step-00000003.ckpt"]
    said = capfd.readouterr().err
    assert "a second Ctrl-C stops at once" in said
    assert "second SIGINT: stopping at once" in said


def test_other_signals_may_come_again_and_again(tmp_path: Path) -> None:
    """SIGXCPU does, every second."""

    class Thrice(Callback):
        def on_before_optimizer_step(self, trainer: Trainer, *_: Any) -> None:
            for number in (signal.SIGXCPU, signal.SIGXCPU, signal.SIGINT) if trainer.global_step == 4 else ():
                os.kill(os.getpid(), number)

    with pytest.raises(Interrupted):
        train(tmp_path, 20, Thrice(), PeriodicCheckpoint(tmp_path / "checkpoints", every=30))
    assert names(tmp_path / "checkpoints") == ["step-00000005.ckpt"]


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_before_training_a_signal_stops_at_once_and_says_so(
    number: signal.Signals, capfd: pytest.CaptureFixture[str]
) -> None:
    before = signal.getsignal(number)
    with pytest.raises(Interrupted) as caught, stop_immediately():
        signal.raise_signal(number)
    assert caught.value.code == 128 + number
    assert signal.getsignal(number) == before
    assert f"{number.name}: no training is in progress" in capfd.readouterr().err


def test_before_training_a_child_ends_as_any_process_does(tmp_path: Path) -> None:
    def wait_to_be_stopped() -> None:
        (tmp_path / "begun").touch()  # what is sent while a process still forks may be lost
        time.sleep(30)

    with stop_immediately():
        child = in_child(wait_to_be_stopped)
        wait_for(tmp_path / "begun")
        os.kill(child, signal.SIGTERM)
        assert ended(child) == -signal.SIGTERM


def test_what_is_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # nohup
    try:
        with stop_immediately():
            os.kill(os.getpid(), signal.SIGHUP)
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_accumulated_gradients_are_not_lost(tmp_path: Path) -> None:
    """The signal comes with the first of three batches that make step 2."""

    class Send(Callback):
        def on_train_batch_start(self, trainer: Trainer, model: LightningModule, batch: Any, batch_idx: int) -> None:
            if batch_idx == 3:
                os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted):
        train(tmp_path, 9, Send(), PeriodicCheckpoint(tmp_path, every=100), accumulate_grad_batches=3)
    saved = load_checkpoint(tmp_path / "step-00000002.ckpt")
    assert saved["loops"]["fit_loop"]["epoch_loop.batch_progress"]["current"]["processed"] == 6


def test_a_signal_in_the_last_step_or_before_the_first_counts(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        train(tmp_path / "last", 4, SignalItself(4, signal.SIGTERM), PeriodicCheckpoint(tmp_path / "last", every=100))
    assert names(tmp_path / "last") == ["step-00000004.ckpt"]

    class Early(Callback):
        def on_train_start(self, *_: Any) -> None:  # our handler is not yet in place, Lightning's is
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted) as caught:
        train(tmp_path / "first", 4, Early(), PeriodicCheckpoint(tmp_path / "first", every=1))
    assert caught.value.checkpoint is None


def test_data_workers_outlive_a_signal_to_the_whole_process_group(tmp_path: Path) -> None:
    """As Slurm sends it. Torch's workers die of SIGTERM otherwise, and with them the step in progress."""

    def work() -> None:
        os.setpgrp()
        trainer = Trainer(
            accelerator="cpu",
            max_steps=STEPS,
            max_epochs=-1,
            logger=False,
            callbacks=[Slow(tmp_path), PeriodicCheckpoint(tmp_path / "checkpoints", every=1000)],
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        try:
            trainer.fit(Tiny(), DataLoader(Stream(), batch_size=None, num_workers=1, multiprocessing_context="fork"))
        except Interrupted as stop:
            os._exit(stop.code)

    child = in_child(work)
    wait_for(tmp_path / "begun-0")
    os.killpg(child, signal.SIGTERM)
    assert ended(child) == 143
    assert len(names(tmp_path / "checkpoints")) == 1


@pytest.mark.parametrize("told", [0, 1])
def test_both_processes_stop_at_one_step_whichever_is_told(tmp_path: Path, told: int) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def rank(number: int) -> Callable[[], None]:
        def work() -> None:
            where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "NODE_RANK": "0"}
            os.environ.update(where, RANK=str(number), LOCAL_RANK=str(number))
            training(tmp_path, strategy="ddp", devices=2, use_distributed_sampler=False)()

        return work

    children = [in_child(rank(number)) for number in (0, 1)]
    wait_for(tmp_path / "begun-0")
    wait_for(tmp_path / "begun-1")
    os.kill(children[told], signal.SIGTERM)
    assert [ended(child) for child in children] == [143, 143]
    (name,) = names(tmp_path / "checkpoints")
    for number in (0, 1):
        assert (tmp_path / f"stop-{number}").read_text() == f"SIGTERM {tmp_path / 'checkpoints' / name}"


def test_forked_children_take_no_note() -> None:
    signals = StopSignals()
    signals.hold()
    signals.listen()

    def work() -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        assert signals.received == 0

    try:
        assert ended(in_child(work)) == 0
        os.kill(os.getpid(), signal.SIGUSR1)
        assert signals.received == signal.SIGUSR1
    finally:
        signals.release()
        signals.release()  # harmless
