"""The time of a step is divided among its phases."""

from collections.abc import Callable
from pathlib import Path

import pytest

from ssl_zoo.training import step_profile
from ssl_zoo.training.step_profile import BARE, PHASES, REST, StepProfile, phase_of
from tests.conftest import Ended


class Now:
    """A clock that goes on by what a test says."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def perf_counter(self) -> float:
        return self.seconds


def step(profile: StepProfile, now: Now, wait: float = 1.0) -> None:
    """A step of 10 s, with `wait` before: 2 s forward, 3 s backward, 1 s EMA, 4 s of the loop's own."""

    def take(action: str, seconds: float) -> None:
        profile.start(action)
        now.seconds += seconds
        profile.stop(action)

    take("[_TrainingEpochLoop].train_dataloader_next", wait)
    profile.start("run_training_batch")
    profile.start("[LightningModule]Learner.optimizer_step")
    take("[Strategy]SingleDeviceStrategy.training_step", 2.0)
    take("[Strategy]SingleDeviceStrategy.backward", 3.0)
    now.seconds += 1.0
    profile.stop("[LightningModule]Learner.optimizer_step")
    now.seconds += 4.0
    profile.stop("run_training_batch")


@pytest.mark.parametrize(("made", "counted"), [(2, 2), (3, 3), (4, 1), (8, 5)])
def test_time_goes_to_the_inner_action_and_the_first_steps_do_not_count(
    made: int, counted: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(step_profile, "time", now := Now())
    profile = StepProfile()
    now.seconds += 100.0  # before training
    profile.start("run_training_epoch")
    for number in range(made):
        step(profile, now, wait=1.0 if number >= 3 or made <= 3 else 50.0)
    profile.stop("run_training_epoch")
    now.seconds += 100.0
    assert profile.steps == counted
    expected = {"waiting for data": 1.0, "forward and loss": 2.0, "backward": 3.0, "optimizer and EMA": 1.0, REST: 4.0}
    assert {phase: seconds / counted for phase, seconds in profile.seconds.items() if seconds} == expected
    said = profile.summary()
    assert "forward and loss           2000.00   18.2%" in said
    assert f"mean of {counted} steps" in said
    assert "55% is the bare step" in said
    assert f"{REST}: a larger data.batch_size" in said


def test_without_a_step_nothing_is_said() -> None:
    assert StepProfile().summary() == ""


def test_a_run_says_where_its_time_goes(cli: Callable[..., Ended]) -> None:
    """With the names that Lightning really uses: each phase of a run takes some time."""
    small = ("backbone.channels=[8,8,8,8]", "method.hidden_dim=16", "data.batch_size=8", "evaluators=[]", "logger=csv")
    ended = cli(
        "method=byol", "trainer.profile=true", "trainer.accelerator=cpu", "budget.steps=6", *small, "hydra.run.dir=run"
    )
    assert ended.status == 0, ended.err
    lines = {line[:24].strip(): line for line in Path("run/run.log").read_text().splitlines()}
    for phase in (*PHASES, REST):
        assert not lines[phase].split()[-2].startswith("0.00"), phase
    assert "mean of 3 steps" in lines["in all"]
    assert "is the bare step: forward, backward and optimizer" in ended.out


def test_hooks_of_callbacks_are_not_taken_for_the_step() -> None:
    assert phase_of("[Callback]ProgressBar.on_before_zero_grad") == "callbacks and logging"
    assert phase_of("[LightningModule]Learner.optimizer_zero_grad") in BARE
    assert phase_of("[Strategy]DDPStrategy.backward") in BARE
    assert phase_of("run_training_batch") == REST
