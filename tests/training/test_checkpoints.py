"""Checkpoints: whole or absent after any kill, damage found and named, full disks survived."""

import os
import random
import resource
import signal
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

from ssl_zoo.report import results
from ssl_zoo.training import checkpoints
from ssl_zoo.training.checkpoints import (
    REQUIRED_KEYS,
    CheckpointNotWritten,
    DamagedCheckpoint,
    SafeCheckpointIO,
    latest_checkpoint,
    load_checkpoint,
    resolve_checkpoint,
    step_of,
    verify_checkpoint,
)


class Stream(IterableDataset[Tensor]):
    """Endless batches (8, 4), each a function of its number, from `start` on."""

    def __init__(self, start: int = 0):
        self.start = start

    def __iter__(self) -> Iterator[Tensor]:
        step = self.start
        while True:
            yield torch.randn(8, 4, generator=torch.Generator().manual_seed(step))
            step += 1


class Tiny(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        loss = (self.net(batch) - batch.sum(1, keepdim=True)).square().mean()
        self.log_dict({"train/loss": loss.detach(), "step": self.global_step + 1.0})
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=1e-2)


def train(folder: Path, steps: int, *callbacks: Callback, resume: Path | None = None, **settings: Any) -> Tiny:
    model = Tiny()
    trainer = Trainer(
        accelerator="cpu",
        max_steps=steps,
        max_epochs=-1,
        callbacks=list(callbacks),
        plugins=[SafeCheckpointIO()],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        **{"logger": False} | settings,
    )
    start = step_of(resume) * trainer.accumulate_grad_batches if resume else 0
    trainer.fit(model, DataLoader(Stream(start), batch_size=None), ckpt_path=resume)
    return model


def contents(size: int = 64, step: int = 7) -> dict[str, Any]:
    """What a checkpoint must hold, with `size` floats of weights."""
    weights = torch.arange(size, dtype=torch.float32) + step
    return {"state_dict": {"w": weights}, "global_step": step, "optimizer_states": [], "loops": {}}


def save(path: Path, size: int = 64, step: int = 7) -> Path:
    SafeCheckpointIO().save_checkpoint(contents(size, step), path)
    return path


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def in_child(work: Callable[[], None]) -> int:
    """Runs `work` in a forked process and returns its id; the child's exit code is 1 if `work` raises."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        torch.set_num_threads(1)
        work()
        code = 0
    finally:
        os._exit(code)


def test_a_checkpoint_comes_back_as_it_was(tmp_path: Path) -> None:
    path = save(tmp_path / "new folder" / "step-00000007.ckpt")
    verify_checkpoint(path)
    back = load_checkpoint(path)
    assert torch.equal(back["state_dict"]["w"], contents()["state_dict"]["w"])
    assert back["global_step"] == step_of(path) == 7
    assert names(path.parent) == ["step-00000007.ckpt"]


def test_forty_kills_while_saving_cost_no_checkpoint(tmp_path: Path) -> None:
    """The good file is overwritten again and again; every kill comes at another moment of that."""
    path = save(tmp_path / "step-00000007.ckpt", size=200_000)

    def overwrite() -> None:
        while True:
            save(path, size=200_000)

    moments, part = random.Random(0), tmp_path / ".step-00000007.ckpt.part"
    unfinished = 0
    for _ in range(40):
        part.unlink(missing_ok=True)
        child, deadline = in_child(overwrite), time.time() + 30
        while not part.exists() and time.time() < deadline:  # a busy machine may take long to let it begin
            time.sleep(0.0005)
        time.sleep(moments.uniform(0, 0.01))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        verify_checkpoint(path)
        unfinished += part.exists()
    assert unfinished > 10, "too few kills came in the middle of a save to prove anything"


def damage_truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def damage_empty(path: Path) -> None:
    os.truncate(path, 0)


def damage_page(path: Path) -> None:
    path.write_text("\n<!DOCTYPE html><html><body>Sign in</body></html>")


def damage_pointer(path: Path) -> None:
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12345\n")


def damage_flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    middle = data.index(torch.arange(7, 9, dtype=torch.float32).numpy().tobytes())
    data[middle] ^= 1
    path.write_bytes(data)


def damage_keys(path: Path) -> None:
    torch.save({"state_dict": {}}, path)


DAMAGE = {
    "truncated or damaged": damage_truncate,
    "the file is empty": damage_empty,
    "a web page": damage_page,
    "git-lfs pointer": damage_pointer,
    "the checksum of": damage_flip,
    "it lacks global_step, optimizer_states, loops": damage_keys,
}


@pytest.mark.parametrize("reason", DAMAGE)
def test_damage_is_found_and_named(tmp_path: Path, reason: str) -> None:
    path = save(tmp_path / "step-00000007.ckpt")
    DAMAGE[reason](path)
    with pytest.raises(DamagedCheckpoint, match=reason) as caught:
        verify_checkpoint(path)
    assert str(path) in str(caught.value)
    assert f"{path.stat().st_size:,} bytes" in str(caught.value)
    with pytest.raises(DamagedCheckpoint):
        SafeCheckpointIO().load_checkpoint(path)


def test_no_flipped_byte_changes_what_is_loaded(tmp_path: Path) -> None:
    """Everywhere, headers and padding included: either it is found or it makes no difference.

    This bit turns a record into a folder in one place, for which torch then invents the weights.
    """
    path = save(tmp_path / "step-00000007.ckpt", size=8)
    sound, found = path.read_bytes(), 0
    directory = zipfile.ZipFile(path).start_dir
    for place in [*range(0, directory, 4), *range(directory, len(sound))]:
        flipped = bytearray(sound)
        flipped[place] ^= 0x10
        path.write_bytes(flipped)
        try:
            back = load_checkpoint(path)
        except DamagedCheckpoint:
            found += 1
        else:
            assert torch.equal(back["state_dict"]["w"], contents(8)["state_dict"]["w"])
    assert found > 200


def test_a_pickle_that_runs_code_is_refused(tmp_path: Path) -> None:
    marker = tmp_path / "marker"

    class Evil:
        def __reduce__(self) -> Any:
            return os.system, (f"touch {marker}",)

    torch.save(contents() | {"hyper_parameters": Evil()}, tmp_path / "evil.ckpt")
    with pytest.raises(DamagedCheckpoint, match="more than tensors and plain values"):
        load_checkpoint(tmp_path / "evil.ckpt")
    assert not marker.exists()


def test_what_could_not_be_loaded_again_is_not_saved(tmp_path: Path) -> None:
    path = save(tmp_path / "step-00000007.ckpt")
    with pytest.raises(DamagedCheckpoint, match="plain values"):
        SafeCheckpointIO().save_checkpoint(contents() | {"hyper_parameters": {"folder": tmp_path}}, path)
    verify_checkpoint(path)
    assert names(tmp_path) == [path.name]


def test_a_full_disk_leaves_the_old_file_and_no_rubbish(tmp_path: Path) -> None:
    """A real limit of the operating system on the size of files, in a child."""
    path = save(tmp_path / "step-00000007.ckpt")

    def save_too_much() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        with pytest.raises(CheckpointNotWritten, match=r"step-00000007.ckpt could not be written: .*File too large"):
            save(path, size=200_000)

    assert os.waitpid(in_child(save_too_much), 0)[1] == 0
    verify_checkpoint(path)
    assert names(tmp_path) == [path.name]


def test_latest_skips_damaged_ones_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for step in (5, 40, 300):
        save(tmp_path / "checkpoints" / f"step-{step:08d}.ckpt", step=step)
    (tmp_path / "checkpoints" / "other.ckpt").touch()
    assert (
        latest_checkpoint(tmp_path)
        == latest_checkpoint(tmp_path / "checkpoints")
        == tmp_path / "checkpoints" / "step-00000300.ckpt"
    )
    assert not caplog.messages
    damage_truncate(tmp_path / "checkpoints" / "step-00000300.ckpt")
    damage_empty(tmp_path / "checkpoints" / "step-00000040.ckpt")
    assert latest_checkpoint(tmp_path) == tmp_path / "checkpoints" / "step-00000005.ckpt"
    (line,) = caplog.messages
    assert all(word in line for word in ("step-00000300.ckpt", "step-00000040.ckpt", "using step-00000005.ckpt"))
    assert latest_checkpoint(tmp_path / "nowhere") is None


def test_resolve_takes_a_file_or_a_run_folder(tmp_path: Path) -> None:
    path = save(tmp_path / "run" / "checkpoints" / "step-00000007.ckpt")
    assert resolve_checkpoint(str(path)) == resolve_checkpoint(str(tmp_path / "run")) == path
    with pytest.raises(ValueError, match=r"checkpoint=.*nowhere: no such file or folder\. Give"):
        resolve_checkpoint(str(tmp_path / "nowhere"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"checkpoint=.*empty: no checkpoints/step-\*\.ckpt in this folder"):
        resolve_checkpoint(str(tmp_path / "empty"))
    damage_empty(path)
    with pytest.raises(ValueError, match="all 1 checkpoints here are damaged"):
        resolve_checkpoint(tmp_path / "run")
    with pytest.raises(DamagedCheckpoint, match="empty"):
        resolve_checkpoint(path)


def test_a_run_folder_stands_for_the_runs_last_checkpoint_only(tmp_path: Path) -> None:
    older, newer = (save(tmp_path / "checkpoints" / f"step-{step:08d}.ckpt", step=step) for step in (5, 7))
    assert resolve_checkpoint(tmp_path) == newer
    results.write_results(tmp_path, results.empty_results("running", checkpoint_step=9))
    with pytest.raises(ValueError, match=r"of step 9, is missing or damaged.*checkpoint=.*step-00000007\.ckpt"):
        resolve_checkpoint(tmp_path)
    results.write_results(tmp_path, results.empty_results("running", checkpoint_step=7))
    assert resolve_checkpoint(tmp_path) == newer
    damage_truncate(newer)
    with pytest.raises(ValueError, match=r"of step 7, is missing or damaged.*checkpoint=.*step-00000005\.ckpt"):
        resolve_checkpoint(tmp_path)
    assert resolve_checkpoint(older) == older


def backbone() -> nn.Module:
    net = nn.Linear(2, 4)
    net.num_features = 4  # type: ignore[assignment]
    return net


def test_a_checkpoint_must_exist() -> None:
    with pytest.raises(ValueError, match="checkpoint=nowhere"):
        checkpoints.load_encoder(backbone(), "nowhere")


def test_a_run_goes_on_from_the_encoder_that_was_kept(tmp_path: Path) -> None:
    """Not from another network of the same shape, such as the student beside a teacher that was kept."""
    kept, other = backbone().state_dict(), backbone().state_dict()
    state = {f"method.{name}.{k}": v for name, net in (("backbone", other), ("target", kept)) for k, v in net.items()}
    saved = {key: {} for key in REQUIRED_KEYS} | {"state_dict": state, "ssl_zoo": {"encoder": "method.target"}}
    SafeCheckpointIO().save_checkpoint(saved, tmp_path / "step-00000001.ckpt")
    foreign = {key: value for key, value in saved.items() if key != "ssl_zoo"}
    SafeCheckpointIO().save_checkpoint(foreign, tmp_path / "foreign.ckpt")
    with pytest.raises(ValueError, match=r"backbone\.pretrained"):
        checkpoints.load_encoder(backbone(), str(tmp_path / "foreign.ckpt"))
    started = backbone()
    checkpoints.load_encoder(started, str(tmp_path / "step-00000001.ckpt"))
    torch.testing.assert_close(started.state_dict(), kept, rtol=0, atol=0)
