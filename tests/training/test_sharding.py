"""`trainer=fsdp`: two gloo processes with half of the weights each do what DDP does, and leave what it leaves."""

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from lightning.pytorch.plugins.environments import LightningEnvironment
from torch import Tensor
from torch.distributed.tensor import DTensor

from ssl_zoo.conformance import subjects
from ssl_zoo.distributed import rank, world_size
from ssl_zoo.learner import Learner
from ssl_zoo.method import Batch
from ssl_zoo.schedules import warmup_cosine
from ssl_zoo.training.saving import NonFiniteWeights, PeriodicCheckpoint, _check_finite
from ssl_zoo.training.sharding import FullySharded, check_shardable, whole_method
from tests import distributed
from tests.test_learner import Stream, make_trainer

STEPS = 4
NAMES = ("byol/conv", "dino/vit")


def subject_named(name: str) -> subjects.Subject:
    return next(subject for subject in subjects.subjects_of(name.split("/")[0]) if subject.name == name)


def share(x: Tensor) -> Tensor:
    return x.chunk(world_size())[rank()]


class Shares(Stream):
    """This process's share of each batch of a subject."""

    def __init__(self, subject: subjects.Subject):
        super().__init__()
        self.subject = subject

    def __iter__(self) -> Iterator[Batch]:
        number = self.start_batch
        while True:
            views, labels, indices = self.subject.batch(number)
            yield Batch([share(view) for view in views], share(labels), share(indices))
            number += 1


class Trained(NamedTuple):
    """Of one process: its last checkpoint, its share of the weights, and the encoder as it is exported."""

    state: dict[str, Tensor]
    momenta: list[Tensor]
    kept: float
    encoder: dict[str, Tensor]


def train(name: str, folder: Path, strategy: Any, resume: Path | None = None) -> Trained:
    """Trains to step 4 and saves at steps 2 and 4."""
    optimizer = partial(torch.optim.SGD, lr=0.05, momentum=0.9, weight_decay=0.1)
    schedule = partial(warmup_cosine, warmup=0.25, final=0.0)
    learner = Learner(subject_named(name).build(0), optimizer, schedule, seed=3, total_steps=STEPS)
    plugins = [LightningEnvironment()] if world_size() > 1 else []
    more = {"devices": world_size(), "strategy": strategy, "gradient_clip_val": 1.0}
    trainer = make_trainer(folder, STEPS, plugins, callbacks=[PeriodicCheckpoint(folder, every=2)], **more)
    trainer.fit(learner, datamodule=Shares(subject_named(name)), ckpt_path=resume, weights_only=True)
    weights = list(learner.method.parameters())
    kept = sum(p.to_local().numel() if isinstance(p, DTensor) else p.numel() for p in weights)
    saved = torch.load(folder / "step-00000004.ckpt", weights_only=True)
    momenta = [state["momentum_buffer"] for state in saved["optimizer_states"][0]["state"].values()]
    encoder = whole_method(trainer, learner).encoder.state_dict() if isinstance(strategy, FullySharded) else {}
    if isinstance(strategy, FullySharded) and name == "byol/conv":
        last = weights[-1].to_local()
        if len(last) and rank() == 1:
            last.view(-1)[0] = torch.nan
        with pytest.raises(NonFiniteWeights):  # on both, though one of them has it
            _check_finite(learner, STEPS)
    return Trained(saved["state_dict"], momenta, kept / sum(p.numel() for p in weights), encoder if rank() == 0 else {})


def train_all(place: str) -> dict[str, Trained]:
    os.environ |= {"LOCAL_RANK": str(rank()), "WORLD_SIZE": "2", "NODE_RANK": "0"}
    folder, found = Path(place), dict[str, Trained]()
    for name in NAMES:
        for kind, strategy in (("ddp", "ddp"), ("fsdp", FullySharded())):
            found[f"{name} {kind}"] = train(name, folder / name / kind, strategy)
    for kind in ("ddp", "fsdp"):
        halfway = folder / "byol/conv" / kind / "step-00000002.ckpt"
        found[f"from {kind}"] = train("byol/conv", folder / f"from {kind}", FullySharded(), halfway)
    return found


def assert_equal(found: Trained, expected: Trained, tolerance: float = 0.0) -> None:
    assert found.state.keys() == expected.state.keys()
    for name, value in expected.state.items():
        torch.testing.assert_close(found.state[name], value, rtol=tolerance, atol=tolerance, msg=name)
    for momentum, value in zip(found.momenta, expected.momenta, strict=True):
        torch.testing.assert_close(momentum, value, rtol=tolerance, atol=tolerance)


def test_sharded_processes_do_what_ddp_does(tmp_path: Path) -> None:
    """BYOL and DINO have a teacher that is an average; BatchNorm, conv, attention and prototypes are divided, too."""
    first, second = distributed.run(2, train_all, str(tmp_path))
    for name in NAMES:
        assert_equal(first[f"{name} fsdp"], first[f"{name} ddp"], tolerance=1e-6)
        assert first[f"{name} ddp"].kept == 1
        assert 0.4 < first[f"{name} fsdp"].kept < 0.6
        assert 0.4 < second[f"{name} fsdp"].kept < 0.6
        for key, value in first[f"{name} fsdp"].encoder.items():
            assert torch.equal(value, first[f"{name} fsdp"].state[f"method.backbone.{key}"])
    assert_equal(first["from fsdp"], first["byol/conv fsdp"])
    assert_equal(first["from ddp"], first["byol/conv ddp"], tolerance=1e-6)
    # One process goes on from what two divided ones have saved.
    alone = train("byol/conv", tmp_path / "alone", "auto", tmp_path / "byol/conv" / "fsdp" / "step-00000002.ckpt")
    assert_equal(alone, first["byol/conv ddp"], tolerance=2e-5)


def test_what_cannot_be_divided_is_refused_before_data_is_read() -> None:
    with pytest.raises(ValueError, match=r"trainer=fsdp: CLIP trains a single number, log_scale.*trainer=ddp"):
        check_shardable(subjects.subjects_of("clip")[0].build(0), compiled=False)
    byol = subject_named("byol/conv").build(0)
    with pytest.raises(ValueError, match=r"trainer\.compile=true has not been tried with trainer=fsdp"):
        check_shardable(byol, compiled=True)
    check_shardable(byol, compiled=False)
