"""The kit finds what it is there to find: each planted fault fails its check, and passes the others."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ssl_zoo.conformance import checks
from ssl_zoo.conformance.checks import failures
from ssl_zoo.conformance.subjects import Subject, subjects_of_class
from ssl_zoo.distributed import all_reduce_mean
from ssl_zoo.functional import info_nce
from ssl_zoo.method import Batch, Method
from ssl_zoo.methods.simclr import SimCLR


class LocalNegatives(SimCLR):
    """Contrasts with the examples of its own process only."""

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        z1, z2 = (self.projector(self.backbone(view)) for view in batch.views[:2])
        positives = torch.arange(len(z1))
        return {"loss": info_nce(z1, z2, positives, self.temperature, excluded=None)}


class OwnDraws(SimCLR):
    """Each process draws noise for its own examples from its own generator."""

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        noisy = [view + 0.1 * torch.rand_like(view) for view in batch.views]
        return super().forward(batch._replace(views=noisy), progress)


class Peeking(SimCLR):
    """Reads labels and does not say so."""

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        return {"loss": super().forward(batch, progress)["loss"] * (1 + 1e-3 * batch.labels.float().mean())}


class Forgetful(SimCLR):
    """Remembers the last projections in an attribute that no checkpoint holds."""

    def __init__(self, **arguments: Any):
        super().__init__(**arguments)
        self.last = torch.zeros(())

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        loss = super().forward(batch, progress)["loss"]
        total, self.last = loss + 0.1 * self.last * loss, loss.detach()
        return {"loss": total}


class Dead(SimCLR):
    """Has a layer that nothing uses."""

    def __init__(self, **arguments: Any):
        super().__init__(**arguments)
        self.unused = nn.Linear(2, 2)


class LiveTeacher(SimCLR):
    """Its teacher takes gradients at every other step of the optimizer, though it does not train."""

    def __init__(self, **arguments: Any):
        super().__init__(**arguments)
        self.teacher = copy.deepcopy(self.projector)

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        self.teacher.requires_grad_(True)
        loss = super().forward(batch, progress)["loss"] + self.teacher(self.backbone(batch.views[0])).square().mean()
        loss.backward(retain_graph=True)
        self.teacher.requires_grad_(False)
        return {"loss": loss}


class Still(SimCLR):
    """Trains its projector and never its backbone."""

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        z = [self.projector(self.backbone(view).detach()) for view in batch.views]
        none = sum(p.sum() * 0 for p in self.backbone.parameters())
        return {"loss": torch.stack(z).square().mean() + none}


class TwoViewsOnly(SimCLR):
    """Cannot do with a view more."""

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        view1, view2 = batch.views
        return super().forward(batch._replace(views=[view1, view2]), progress)


class Infinite(SimCLR):
    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        return {"loss": super().forward(batch, progress)["loss"] * torch.inf}


class Graphless(SimCLR):
    """Computes something else when it is compiled."""

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        factor = 2.0 if torch.compiler.is_compiling() else 1.0
        return {"loss": super().forward(batch, progress)["loss"] * factor}


def subject(fault: type[Method], kind: str = "conv") -> Subject:
    arguments = {"hidden_dim": 16, "out_dim": 8, "temperature": 0.2}
    return subjects_of_class(f"{__name__}.{fault.__name__}", arguments, (kind,))[0]


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (Dead, "no gradient for unused.weight, unused.bias"),
        (LiveTeacher, "a gradient for teacher"),
        (Still, "the encoder does not move"),
        (Infinite, "the loss is inf"),
    ],
)
def test_a_step_shows(fault: type[Method], message: str) -> None:
    assert message in failures(checks.step(subject(fault)))


def test_a_step_needs_as_many_views_as_there_are() -> None:
    with pytest.raises(ValueError, match="too many values to unpack"):
        checks.step(subject(TwoViewsOnly))


def test_two_processes_show_what_is_not_shared() -> None:
    findings = checks.two_processes([subject(SimCLR), subject(LocalNegatives), subject(OwnDraws), subject(Dead)])
    failed = {finding.subject for finding in findings if finding.failure}
    assert failed == {"LocalNegatives/conv", "OwnDraws/conv"}
    assert "all_gather" in failures(findings)


class Sharp(SimCLR):
    """Blows up what rounding leaves, as the inverse of a nearly singular covariance does."""

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        x = all_reduce_mean(self.projector(self.backbone(batch.views[0])).mean())
        return {"loss": super().forward(batch, progress)["loss"] + torch.sin(300 * x) / 10}


def test_what_hangs_on_rounding_is_granted_more() -> None:
    findings = checks.two_processes([subject(Sharp), subject(LocalNegatives)])
    by_name = {(f.subject.split("/")[0], f.check.split(", ")[1]): f for f in findings}
    sharp, local = by_name["Sharp", "gradient"], by_name["LocalNegatives", "gradient"]
    assert sharp.seen is not None
    assert sharp.tolerance is not None
    assert checks.TOLERANCE < sharp.seen <= sharp.tolerance <= checks.ROUNDING_TOLERANCE
    assert local.failure


@pytest.mark.parametrize(("gradient", "fails"), [(1.0, False), (1.5, False), (1.25, True)])
def test_where_rounding_decides_it_decides_as_in_a_draw(
    gradient: float, fails: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One process finds 1, or 1.5 where a ReLU is on that is off otherwise; nothing finds 1.25."""

    def found(gradient: float) -> list[checks.Record]:
        return [{"loss": np.ones(()), "gradient weight": np.array([gradient]), "state weight": np.ones(1)}]

    monkeypatch.setattr(checks, "record_steps", lambda _, seed: found(1.5 if seed == 5 else 1.0))
    findings = checks._compare_records(subject(SimCLR), found(1.0), found(gradient), "rank 0")
    assert bool(failures(findings)) is fails


def test_reading_labels_shows() -> None:
    assert "uses_labels" in failures(checks.labels(subject(Peeking)))
    assert not failures(checks.labels(subject(SimCLR)))
    assert not checks.labels(
        subjects_of_class("ssl_zoo.methods.supervised.Supervised", {"num_classes": 10, "label_smoothing": 0})[0]
    )


def test_what_is_not_in_the_checkpoint_shows() -> None:
    assert "the loss" in failures(checks.resume(subject(Forgetful)))
    assert not failures(checks.resume(subject(SimCLR)))


def test_compiling_to_something_else_shows() -> None:
    assert failures(checks.compiled(subject(Graphless)))


def test_the_table_shows_numbers_and_advice() -> None:
    table = checks.findings_table(checks.labels(subject(Peeking)))
    assert [column.header for column in table.columns] == ["subject", "check", "seen", "tolerance", "result"]
    assert "declare uses_labels" in str(next(iter(table.columns[4].cells)))
