"""When a run saves: the last two kept, a failed last save is a failed run, no NaN, room looked at beforehand."""

import errno
import shutil
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from ssl_zoo.training.checkpoints import CheckpointNotWritten, latest_checkpoint, load_checkpoint
from ssl_zoo.training.saving import NonFiniteWeights, PeriodicCheckpoint, check_disk_space, delete_older_checkpoints
from ssl_zoo.training.stop_signals import Interrupted
from tests.training.test_checkpoints import damage_truncate, names, save, train


def test_the_last_two_are_kept_and_the_end_is_saved(tmp_path: Path) -> None:
    rubbish = tmp_path / "checkpoints" / ".step-00000002.ckpt.part"
    rubbish.parent.mkdir()
    rubbish.touch()
    model = train(tmp_path, 11, PeriodicCheckpoint(tmp_path / "checkpoints", every=4))
    assert names(tmp_path / "checkpoints") == ["step-00000008.ckpt", "step-00000011.ckpt"]
    saved = load_checkpoint(tmp_path / "checkpoints" / "step-00000011.ckpt")["state_dict"]
    assert all(torch.equal(weights, saved[name]) for name, weights in model.state_dict().items())


@pytest.mark.parametrize("accumulate", [1, 3])
def test_a_resumed_run_ends_with_the_same_weights(tmp_path: Path, accumulate: int) -> None:
    settings = {"accumulate_grad_batches": accumulate}
    whole = train(tmp_path / "a", 10, PeriodicCheckpoint(tmp_path / "a", every=100), **settings)
    train(tmp_path / "b", 7, PeriodicCheckpoint(tmp_path / "b", every=3, keep=3), **settings)
    assert names(tmp_path / "b") == [f"step-{step:08d}.ckpt" for step in (3, 6, 7)]
    damage_truncate(tmp_path / "b" / "step-00000007.ckpt")
    newest = latest_checkpoint(tmp_path / "b")
    again = train(tmp_path / "b", 10, PeriodicCheckpoint(tmp_path / "b", every=3), resume=newest, **settings)
    assert all(torch.equal(weights, again.state_dict()[name]) for name, weights in whole.state_dict().items())
    # The damaged step 7 was in the future of step 9, when it was due to go; step 10 then saw to it.
    assert names(tmp_path / "b") == ["step-00000009.ckpt", "step-00000010.ckpt"]


def test_a_finished_run_can_be_resumed_and_does_nothing(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    train(tmp_path, 4, PeriodicCheckpoint(tmp_path, every=100))
    train(tmp_path, 4, PeriodicCheckpoint(tmp_path, every=100), resume=latest_checkpoint(tmp_path))
    assert names(tmp_path) == ["step-00000004.ckpt"]
    assert signal.getsignal(signal.SIGTERM) == before
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, []) & {signal.SIGTERM, signal.SIGUSR1}


def test_a_failed_save_is_reported_and_training_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    sound = torch.save

    def full(obj: Any, file: Any) -> None:
        if "step-00000004" in file.name:
            file.write(b"half a file")
            raise OSError(errno.ENOSPC, "No space left on device")
        sound(obj, file)

    monkeypatch.setattr(torch, "save", full)
    train(tmp_path, 6, PeriodicCheckpoint(tmp_path, every=2))
    assert names(tmp_path) == ["step-00000002.ckpt", "step-00000006.ckpt"]
    (line,) = [record.message for record in caplog.records if record.name == "ssl_zoo.training.saving"]
    assert "step-00000004.ckpt could not be written: [Errno 28] No space left on device" in line
    assert "next attempt is in 2 steps" in line


def test_weights_that_are_not_finite_are_never_saved(tmp_path: Path) -> None:
    class Poison(Callback):
        def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
            if trainer.global_step == 5:
                next(pl_module.parameters()).data[0, 0] = torch.nan

    with pytest.raises(NonFiniteWeights, match=r"step 6: 4 parameters are not finite, the first is net\.0\.weight"):
        train(tmp_path, 20, Poison(), PeriodicCheckpoint(tmp_path, every=2))
    assert names(tmp_path) == ["step-00000002.ckpt", "step-00000004.ckpt"]
    assert all(
        weights.isfinite().all() for weights in load_checkpoint(tmp_path / "step-00000004.ckpt")["state_dict"].values()
    )


@pytest.mark.parametrize(
    ("settings", "message"), [({"every": 0}, "trainer.checkpoint_every=0"), ({"every": 1, "keep": 0}, "keep=0")]
)
def test_settings_out_of_range(tmp_path: Path, settings: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PeriodicCheckpoint(tmp_path, **settings)


def fill_disk(monkeypatch: pytest.MonkeyPatch, room: int, folder: Path) -> None:
    """The disk has room for `room` checkpoints in `folder`, the one being written included."""
    sound = torch.save

    def save_if_room(obj: Any, file: Any) -> None:
        if len(list(folder.glob("step-*.ckpt"))) >= room:
            file.write(b"half a file")
            raise OSError(errno.ENOSPC, "No space left on device")
        sound(obj, file)

    monkeypatch.setattr(torch, "save", save_if_room)


def test_the_last_save_gets_the_room_of_older_checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill_disk(monkeypatch, room=2, folder=tmp_path)
    model = train(tmp_path, 8, PeriodicCheckpoint(tmp_path, every=2))  # 2 and 4 are there, 6 and 8 find no room
    assert names(tmp_path) == ["step-00000004.ckpt", "step-00000008.ckpt"]
    saved = load_checkpoint(tmp_path / "step-00000008.ckpt")["state_dict"]
    assert all(torch.equal(weights, saved[name]) for name, weights in model.state_dict().items())


@pytest.mark.parametrize("every", [2, 4])  # the last step's save is tried before the end, or only there
def test_a_failed_last_save_fails_the_run_and_leaves_it_resumable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, every: int
) -> None:
    with monkeypatch.context() as full:
        fill_disk(full, room=1, folder=tmp_path)
        with pytest.raises(CheckpointNotWritten, match=r"weights of step 6 are lost.* goes on from step") as caught:
            train(tmp_path, 6, PeriodicCheckpoint(tmp_path, every=every))
    assert f"goes on from step {every}" in str(caught.value)
    assert names(tmp_path) == [f"step-{every:08d}.ckpt"]
    whole = train(tmp_path / "whole", 6)
    again = train(tmp_path, 6, PeriodicCheckpoint(tmp_path, every=every), resume=latest_checkpoint(tmp_path))
    assert all(torch.equal(weights, again.state_dict()[name]) for name, weights in whole.state_dict().items())


def test_a_stop_on_a_full_disk_is_a_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Send(Callback):
        def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
            if trainer.global_step == 4:
                signal.raise_signal(signal.SIGTERM)

    fill_disk(monkeypatch, room=1, folder=tmp_path)
    with pytest.raises(Interrupted) as caught:
        train(tmp_path, 9, Send(), PeriodicCheckpoint(tmp_path, every=3))
    assert caught.value.checkpoint == tmp_path / "step-00000003.ckpt"


def test_room_is_made_from_all_but_the_newest_sound_checkpoint(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        save(tmp_path / f"step-{step:08d}.ckpt", step=step)
    damage_truncate(tmp_path / "step-00000003.ckpt")
    delete_older_checkpoints(tmp_path)
    assert names(tmp_path) == ["step-00000002.ckpt"]
    damage_truncate(tmp_path / "step-00000002.ckpt")
    delete_older_checkpoints(tmp_path)
    assert names(tmp_path) == ["step-00000002.ckpt"]  # nothing is deleted for nothing


def test_room_is_looked_at_before_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = torch.nn.Linear(1000, 1000)  # 12 MB with two values of Adam per parameter, three times
    free = 10_000_000
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=free))
    with pytest.raises(ValueError, match=r"10 MB are free on this disk, .* need 36 MB"):
        check_disk_space(tmp_path, model)
    free = 37_000_000
    check_disk_space(tmp_path, model)
