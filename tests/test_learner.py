"""The step: clock, schedule, parameter groups, the guard against NaN, and what a resumed run sees."""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningDataModule, Trainer
from lightning.pytorch.plugins import MixedPrecision
from torch import Tensor, nn

from ssl_zoo.learner import Learner, NonFiniteLoss
from ssl_zoo.method import Batch, Method
from ssl_zoo.schedules import warmup_cosine
from ssl_zoo.training.checkpoints import SafeCheckpointIO


class Stream(LightningDataModule):
    """Batch n holds n and is the same whenever it is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.start_batch = 0

    def train_dataloader(self) -> "Stream":
        return self

    def __iter__(self) -> Iterator[Batch]:
        step = self.start_batch
        while True:
            generator = torch.Generator().manual_seed(step)
            x = torch.randn(4, 3, generator=generator)
            yield Batch([x], torch.full((4,), step), torch.arange(4))
            step += 1


class Toy(Method):
    """Notes what it is told; its loss has a random part, like masks and dropout."""

    bad_at: int | None = None

    def __init__(self) -> None:
        super().__init__(nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3)))
        self.seen: list[int] = []
        self.clock: list[float] = []
        self.moved: list[float] = []

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        self.seen.append(int(batch.labels[0]))
        self.clock.append(progress)
        x = self.backbone(batch.views[0] * torch.rand(4, 1))
        bad = torch.tensor(float("nan") if self.seen[-1] == self.bad_at else 1.0)
        return {"loss": x.square().mean() * bad + x[:, 0].mean(), "other": x.mean()}

    def after_step(self, progress: float) -> None:
        self.moved.append(progress)


def make_learner(method: Toy, total: int, **clock: Any) -> Learner:
    optimizer = partial(torch.optim.AdamW, lr=0.1, weight_decay=0.5)
    return Learner(
        method, optimizer, partial(warmup_cosine, warmup=0.25, final=0.0), seed=3, total_steps=total, **clock
    )


def make_trainer(folder: Path, steps: int, plugins: Sequence[Any] = (), **more: Any) -> Trainer:
    return Trainer(
        max_steps=steps,
        max_epochs=-1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
        default_root_dir=folder,
        plugins=[SafeCheckpointIO(), *plugins],
        **more,
    )


def fit(
    folder: Path, steps: int, total: int = 8, method: Toy | None = None, resume: Path | None = None, **more: Any
) -> Learner:
    torch.manual_seed(0)
    learner = make_learner(method or Toy(), total)
    make_trainer(folder, steps, **more).fit(learner, datamodule=Stream(), ckpt_path=resume, weights_only=True)
    return learner


def test_progress_runs_from_0_to_below_1_and_drives_the_rate(tmp_path: Path) -> None:
    learner = fit(tmp_path, steps=8)
    assert learner.method.clock == [i / 8 for i in range(8)]
    assert learner.method.moved == learner.method.clock
    assert learner.trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.1 * warmup_cosine(7 / 8, 0.25, 0.0))
    assert learner.clock.seconds > 0
    assert learner.clock.batches_per_second(learner.batches_seen) > 0


def test_accumulation_counts_optimizer_steps(tmp_path: Path) -> None:
    learner = fit(tmp_path, steps=4, total=4, accumulate_grad_batches=2)
    assert learner.method.seen == list(range(8))
    assert learner.method.clock == [0, 0, 0.25, 0.25, 0.5, 0.5, 0.75, 0.75]
    assert learner.method.moved == [0, 0.25, 0.5, 0.75]


def test_norms_and_biases_are_not_decayed(tmp_path: Path) -> None:
    learner = fit(tmp_path, steps=1)
    decayed, spared = sorted(learner.trainer.optimizers[0].param_groups, key=lambda group: -group["weight_decay"])
    assert decayed["weight_decay"] == 0.5
    assert [p.shape for p in decayed["params"]] == [torch.Size([3, 3])]
    assert spared["weight_decay"] == 0
    assert len(spared["params"]) == 3


def test_norms_and_biases_are_decayed_when_asked(tmp_path: Path) -> None:
    torch.manual_seed(0)
    learner = make_learner(Toy(), 8, decay_norms_and_biases=True)
    make_trainer(tmp_path, 1).fit(learner, datamodule=Stream())
    (group,) = learner.trainer.optimizers[0].param_groups
    assert group["weight_decay"] == 0.5
    assert len(group["params"]) == 4


class HalfConstant(Toy):
    constant_rate = ("backbone.0",)


def test_a_submodule_can_learn_at_the_peak_rate_throughout(tmp_path: Path) -> None:
    learner = fit(tmp_path, steps=4, method=HalfConstant())
    rates = {p: group["lr"] for group in learner.trainer.optimizers[0].param_groups for p in group["params"]}
    constant, scheduled = learner.method.backbone
    peak = learner.trainer.optimizers[0].param_groups[0]["peak_lr"]
    assert {rates[p] for p in constant.parameters()} == {peak}
    assert all(rates[p] < peak for p in scheduled.parameters())


class Distilled(Toy):
    def __init__(self) -> None:
        super().__init__()
        self.teacher = nn.Linear(3, 3)

    @property
    def encoder(self) -> nn.Module:
        return self.teacher


@pytest.mark.parametrize(("method", "where"), [(Toy(), "method.backbone"), (Distilled(), "method.teacher")])
def test_a_checkpoint_says_where_the_encoder_is(method: Toy, where: str) -> None:
    checkpoint: dict[str, Any] = {}
    make_learner(method, total=1).on_save_checkpoint(checkpoint)
    assert checkpoint["ssl_zoo"]["encoder"] == where


def test_a_resumed_run_sees_what_the_whole_run_would_have_seen(tmp_path: Path) -> None:
    whole = fit(tmp_path, steps=8)
    first = fit(tmp_path, steps=3)
    first.trainer.save_checkpoint(tmp_path / "step.ckpt")
    rest = fit(tmp_path, steps=8, resume=tmp_path / "step.ckpt")
    assert first.method.seen + rest.method.seen == whole.method.seen
    assert first.method.clock + rest.method.clock == whole.method.clock
    for mine, theirs in zip(rest.method.parameters(), whole.method.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    assert rest.clock.earlier > 0


@pytest.mark.parametrize("bad_at", [0, 3])
def test_a_nan_never_reaches_the_weights(tmp_path: Path, bad_at: int) -> None:
    method = Toy()
    method.bad_at = bad_at
    with pytest.raises(NonFiniteLoss, match=f"step {bad_at}: loss nan"):
        fit(tmp_path, steps=8, method=method)
    assert len(method.moved) == bad_at
    assert all(p.isfinite().all() for p in method.parameters())


class Overflowing(Toy):
    """Its gradients are infinite, while its loss is finite, at the steps `overflow_at`."""

    overflow_at: tuple[int, ...] = ()

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        scalars = super().forward(batch, progress)
        if self.seen[-1] in self.overflow_at:
            weight = self.backbone[0].weight
            scalars["loss"] = scalars["loss"] + (weight - weight.detach()).sqrt().sum()  # a slope of infinity at 0
        return scalars


def scaled(scale: float) -> dict[str, Any]:
    """16-mixed as on a GPU without bfloat16: Lightning's own plugin with a scaler for the CPU."""
    return {"plugins": [MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=scale))]}


def test_a_step_whose_gradients_overflow_is_skipped_and_counted(tmp_path: Path) -> None:
    """The scaler lowers its scale and goes on; nothing moves in the skipped step, the EMA neither."""
    method = Overflowing()
    method.overflow_at = (0, 3)
    before = [p.clone() for p in method.parameters()]
    learner = fit(tmp_path, steps=1, method=method, **scaled(1024.0))
    assert all(torch.equal(p, q) for p, q in zip(before, method.parameters(), strict=True))
    learner.trainer.save_checkpoint(tmp_path / "step.ckpt")
    rest = Overflowing()
    rest.overflow_at = (0, 3)
    resumed = fit(tmp_path, steps=8, method=rest, resume=tmp_path / "step.ckpt", **scaled(1024.0))
    assert resumed.skipped_steps == 2
    assert resumed.global_step == 8
    assert rest.moved == [i / 8 for i in range(1, 8) if i != 3]
    assert resumed.scaler.get_scale() == 256.0
    assert all(p.isfinite().all() for p in rest.parameters())


def test_gradients_that_overflow_at_any_scale_end_the_run(tmp_path: Path) -> None:
    method = Overflowing()
    method.overflow_at = tuple(range(8))
    with pytest.raises(NonFiniteLoss, match=r"step 2: gradients overflow .* below 1 \(0\.5\); 3 steps were skipped"):
        fit(tmp_path, steps=8, method=method, **scaled(4.0))
    assert not method.moved
    assert all(p.isfinite().all() for p in method.parameters())


def test_with_a_scaler_a_loss_that_is_not_finite_still_ends_the_run(tmp_path: Path) -> None:
    method = Toy()
    method.bad_at = 2
    with pytest.raises(NonFiniteLoss, match="step 2: loss nan"):
        fit(tmp_path, steps=8, method=method, **scaled(1024.0))


def test_minutes_stop_the_run(tmp_path: Path) -> None:
    learner = Learner(Toy(), partial(torch.optim.SGD, lr=0.1), lambda progress: 1 - progress, seed=0, minutes=0.005)
    make_trainer(tmp_path, -1).fit(learner, datamodule=Stream())
    clock = learner.method.clock
    assert clock == sorted(clock)
    assert clock[0] < 0.5
    assert max(clock) < 1
    assert 0.3 <= learner.clock.seconds < 5
