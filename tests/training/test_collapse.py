"""The collapse alarm: the same inputs at each look, a warning or an end, a state that survives, no trace left."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ssl_zoo.learner import Learner
from ssl_zoo.method import Batch, Method
from ssl_zoo.training.collapse import CollapseAlarm, Collapsed


class Gain(nn.Module):
    """An encoder that multiplies by a factor, beside which a constant is what collapses."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.ones(()))
        self.modes: list[bool] = []

    def forward(self, x: Tensor) -> Tensor:
        self.modes.append(self.training)
        return self.factor * x + 1


class Data:
    """Turns raw rows to one random view, as data modules do."""

    def transfer_batch_to_device(self, raw: Tensor, device: torch.device, index: int) -> Tensor:
        return raw.to(device)

    def on_after_batch_transfer(self, raw: Tensor, index: int) -> Batch:
        return Batch([raw + 0.01 * torch.randn_like(raw)], raw[:, 0].long(), raw[:, 0].long())


def parts(stops: bool) -> tuple[Any, Any, CollapseAlarm]:
    strategy = SimpleNamespace(broadcast=lambda value: value)
    trainer = SimpleNamespace(
        is_global_zero=True, strategy=strategy, precision_plugin=SimpleNamespace(forward_context=torch.no_grad)
    )
    learner = Learner(Method(Gain()), lambda p: None, lambda p: 1.0, seed=0, total_steps=100)  # type: ignore[arg-type, return-value]
    raw = torch.randn(300, 8, generator=torch.Generator().manual_seed(0))
    return trainer, learner, CollapseAlarm(Data(), raw, stops)  # type: ignore[arg-type]


def train(trainer: Any, learner: Any, alarm: CollapseAlarm, steps: range, collapse_at: int) -> None:
    if steps.start == 0:
        alarm.on_train_start(trainer, learner)
    for step in steps:
        learner.now = step / 100
        learner.steps = step + 1
        if step >= collapse_at:
            learner.method.backbone.factor.data.fill_(0)
        alarm.on_train_batch_end(trainer, learner)


@pytest.fixture(autouse=True)
def _steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Learner, "global_step", property(lambda self: getattr(self, "steps", 0)))


def test_a_healthy_run_is_looked_at_eleven_times_without_a_trace(caplog: pytest.LogCaptureFixture) -> None:
    trainer, learner, alarm = parts(stops=True)
    learner.method.train()
    before = torch.random.get_rng_state()
    train(trainer, learner, alarm, range(100), collapse_at=1000)
    alarm.on_train_end(trainer, learner)
    assert torch.equal(before, torch.random.get_rng_state())
    assert learner.method.backbone.modes == [False] * 11
    assert learner.method.backbone.training
    assert alarm.found is None
    assert alarm.seconds > 0
    assert not caplog.messages


def test_a_collapse_is_told_once_with_its_first_step(caplog: pytest.LogCaptureFixture) -> None:
    trainer, learner, alarm = parts(stops=False)
    train(trainer, learner, alarm, range(100), collapse_at=35)
    alarm.on_train_end(trainer, learner)
    (line,) = caplog.messages
    assert "first seen at step 41, not yet at step 31" in line
    assert alarm.found is not None
    assert alarm.found.what == "output"


def test_a_run_can_be_stopped_at_once() -> None:
    trainer, learner, alarm = parts(stops=True)
    with pytest.raises(Collapsed, match=r"step 51: the output has collapsed.*first seen at step 41"):
        train(trainer, learner, alarm, range(100), collapse_at=35)


def test_a_resumed_run_remembers_what_was_seen() -> None:
    trainer, learner, alarm = parts(stops=True)
    train(trainer, learner, alarm, range(45), collapse_at=35)
    again, learner_again, resumed = parts(stops=True)
    resumed.load_state_dict(alarm.state_dict())
    resumed.on_train_start(again, learner_again)
    assert resumed.watch.state["looks"] == 5, "its first look was before training"
    with pytest.raises(Collapsed, match="first seen at step 41"):
        train(again, learner_again, resumed, range(45, 100), collapse_at=35)
