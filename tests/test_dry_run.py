"""What a configuration promises is checked before any data is read."""

from pathlib import Path

import pytest
from hydra.errors import InstantiationException
from lightning.pytorch.callbacks import LearningRateMonitor
from lightning.pytorch.plugins.environments import LightningEnvironment, SLURMEnvironment
from lightning.pytorch.strategies import DDPStrategy

from ssl_zoo import build, dry_run
from ssl_zoo.conformance.subjects import method_names
from ssl_zoo.training.saving import PeriodicCheckpoint
from tests.test_build import composed


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["method.temperature=0"], "method.temperature=0"),
        (["backbone.name=resnet19"], "backbone.name=resnet19"),
        (["budget.steps=3"], "exactly one of"),
        (["optimizer.lr=0"], "optimizer.lr=0"),
        (["checkpoint=nowhere"], "checkpoint=nowhere"),
        (["+trainer.max_epochs=3"], "trainer.max_epochs"),
        (["method=dino", "views=multicrop", "data.image_size=16"], "local crops of 8 pixels"),
    ],
)
def test_a_mistake_is_found_before_the_data_is_read(overrides: list[str], said: str) -> None:
    """The folder does not exist, and nobody looks."""
    with pytest.raises(Exception, match=said) as raised:
        dry_run.dry_run(composed("data=imagenet", "data.path=nowhere", *overrides))
    assert "nowhere" not in str(raised.value).replace("checkpoint=nowhere", "")


@pytest.mark.parametrize("name", method_names())
def test_every_method_passes_its_rehearsal(name: str) -> None:
    dry_run.dry_run(composed(f"method={name}"))


def test_a_backbone_that_cannot_take_local_crops_is_refused_before_the_data_is_read() -> None:
    small = (
        "data=imagenet",
        "data.path=nowhere",
        "data.image_size=128",
        "views=multicrop",
        "backbone.small_stem=false",
    )
    with pytest.raises(ValueError, match="views: the backbone, made for images of 128 pixels, takes no view of 64"):
        dry_run.dry_run(composed(*small, "method=dino", "backbone.name=mixer_s32_224"))
    dry_run.dry_run(composed(*small, "method=dino", "backbone.name=resnet10t"))


PARTS = (
    "trainer.strategy={_target_:lightning.pytorch.strategies.DDPStrategy,find_unused_parameters:true}",
    "+trainer.callbacks.mine._target_=lightning.pytorch.callbacks.LearningRateMonitor",
    "+trainer.callbacks.mine.logging_interval=step",
    "trainer.plugins={env:{_target_:lightning.pytorch.plugins.environments.LightningEnvironment}}",
)


def test_strategy_callbacks_and_plugins_are_named_by_target(tmp_path: Path) -> None:
    cfg = composed("trainer=ddp_cpu", "logger=csv", *PARTS)
    dry_run.check_trainer(cfg)
    trainer = build.build_trainer(cfg, tmp_path, "32-true", 10, [])
    assert isinstance(trainer.strategy, DDPStrategy)
    assert trainer.strategy._ddp_kwargs == {"find_unused_parameters": True}
    assert trainer.world_size == 2
    mine, ours = trainer.callbacks[-2:]
    assert isinstance(mine, LearningRateMonitor)
    assert mine.logging_interval == "step"
    assert isinstance(ours, PeriodicCheckpoint)  # last, so that it saves what the others did
    assert isinstance(trainer.strategy.cluster_environment, LightningEnvironment)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("trainer.strategy={_target_:lightning.pytorch.strategies.NoStrategy}", "NoStrategy"),
        ("trainer.strategy={_target_:no_such_package.Strategy}", "no_such_package"),
        (
            "trainer.callbacks={mine:{_target_:lightning.pytorch.callbacks.EarlyStopping,monitor:3}}",
            "monitor=3 must be",
        ),
        ("trainer.callbacks=[a]", "trainer.callbacks=.* must be a mapping"),
        ("trainer.callbacks={a:3}", r"trainer.callbacks.a=3: give \{_target_: <class>, ...\}"),
        ("trainer.requeue=maybe", "trainer.requeue=maybe must be"),
        ("trainer.requeue=true", "trainer.requeue=true: this is no job"),
    ],
)
def test_parts_of_the_trainer_that_cannot_be(override: str, said: str) -> None:
    with pytest.raises((ValueError, ImportError, InstantiationException), match=said):
        dry_run.check_trainer(composed(override))


def test_processes_that_others_started_must_be_those_of_the_trainer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(ValueError, match="that makes 2 processes, and torchrun or Slurm has started 4"):
        dry_run.check_trainer(composed("trainer=ddp_cpu"))


def test_slurms_tasks_are_taken_and_in_one_task_lightning_starts_them(monkeypatch: pytest.MonkeyPatch) -> None:
    for key, value in {"JOB_ID": "12", "JOB_NAME": "a.sh", "NTASKS": "2", "STEP_ID": "0", "PROCID": "1"}.items():
        monkeypatch.setenv(f"SLURM_{key}", value)
    monkeypatch.setenv("SLURM_NTASKS_PER_NODE", "2")
    (srun,) = build.trainer_parts(composed("trainer=ddp_cpu").trainer)["plugins"]
    assert isinstance(srun, SLURMEnvironment)
    assert not srun.auto_requeue
    monkeypatch.setenv("SLURM_NTASKS", "1")
    (one,) = build.trainer_parts(composed("trainer=ddp_cpu").trainer)["plugins"]
    assert type(one) is LightningEnvironment


def test_a_batch_that_processes_cannot_share_is_refused_before_the_data_is_read() -> None:
    with pytest.raises(ValueError, match=r"data.batch_size=65 cannot be shared evenly by 2 processes.*multiple of 2"):
        dry_run.dry_run(composed("trainer=ddp_cpu", "data.batch_size=65"))
