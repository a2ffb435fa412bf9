"""Every kind of budget becomes the steps it should."""

import copy
from fractions import Fraction
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ssl_zoo.conformance.subjects import method_names, subjects_of
from ssl_zoo.method import Batch, Method
from ssl_zoo.training import budget

NONE: dict[str, float | None] = dict.fromkeys(budget.BUDGET_KINDS)


@pytest.mark.parametrize(
    ("kind", "value", "steps"),
    [
        ("epochs", 2, 20),
        ("epochs", 0.5, 5),
        ("epochs", 0.55, 6),
        ("steps", 7, 7),
        ("examples", 1000, 16),
        ("flops", 3e6, 3),
        ("steps", 0.1, 1),
    ],
)
def test_budget_in_steps(kind: str, value: float, steps: int) -> None:
    found = budget.resolve_budget(
        NONE | {kind: value}, steps_per_epoch=Fraction(10), examples_per_step=64, flops_per_step=1e6
    )
    assert (found.kind, found.steps, found.minutes) == (kind, steps, None)
    assert str(steps) in str(found)


def test_epochs_that_are_whole_steps_take_no_step_more() -> None:
    """Seven epochs of 29 batches, seven to a step: 29 steps, though 7 * (29 / 7) is above 29 in floats."""
    assert budget.resolve_budget(NONE | {"epochs": 7}, Fraction(29, 7), 64, 1e6).steps == 29


def test_minutes_have_no_steps() -> None:
    found = budget.resolve_budget(NONE | {"minutes": 3}, Fraction(10), 64, 1e6)
    assert (found.steps, found.minutes) == (None, 3.0)


@pytest.mark.parametrize(
    "given", [{}, {"epochs": 1, "steps": 2}, {"epochs": 0}, {"steps": -1}, {"flops": float("inf")}]
)
def test_bad_budget_is_refused_by_name(given: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="budget"):
        budget.resolve_budget(NONE | given, Fraction(10), 64, 1e6)


class Square(Method):
    def forward(self, batch: Batch, progress: float) -> dict[str, torch.Tensor]:
        return {"loss": self.backbone(batch.views[0]).square().sum() * torch.rand(())}


def test_flops_of_a_linear_layer() -> None:
    method = Square(nn.Linear(10, 3))
    labels = torch.zeros(8, dtype=torch.long)
    batch = Batch([torch.randn(8, 10)], labels, labels)
    before, weight = torch.get_rng_state(), method.backbone.weight.clone()  # type: ignore[union-attr, operator]
    flops = budget.count_flops(method, batch)
    assert flops == 2 * (2 * 10 * 3)  # forward and weight gradient; the input takes none
    assert method.backbone.weight.grad is None
    assert torch.equal(method.backbone.weight, weight)  # type: ignore[arg-type]
    assert torch.equal(torch.get_rng_state(), before)


SHAPES_FROM_VALUES = {"deepcluster", "ijepa"}
"""The first clusters the examples seen so far, the second samples the size of its blocks."""


@pytest.mark.parametrize("name", method_names())
def test_flops_without_computing_are_those_of_a_real_pass(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    copies = []
    real_pass = budget._real_pass
    monkeypatch.setattr(budget, "_real_pass", lambda *given: copies.append(given) or real_pass(*given))
    for subject in subjects_of(name):
        method, (views, labels, indices) = subject.build(0), subject.batch(0)
        batch = Batch([view[:8] for view in views], labels[:8], indices[:8])
        with torch.random.fork_rng(), FlopCounterMode(display=False) as counter:
            copy.deepcopy(method).train()(batch, 0.0)["loss"].backward()
        before, state = copy.deepcopy(method.state_dict()), torch.get_rng_state()
        assert budget.count_flops(method, batch) == counter.get_total_flops() / 8 > 0
        torch.testing.assert_close(method.state_dict(), before, rtol=0, atol=0)
        assert torch.equal(torch.get_rng_state(), state)
    assert bool(copies) == (name in SHAPES_FROM_VALUES)


class Enormous(Method):
    def forward(self, batch: Batch, progress: float) -> dict[str, torch.Tensor]:
        square = self.backbone(batch.views[0]).sum().expand(10**6, 10**6)
        return {"loss": (square @ square).sum()}


def test_nothing_is_computed() -> None:
    """The product would take four terabytes, and a core a year."""
    labels = torch.zeros(8, dtype=torch.long)
    flops = budget.count_flops(Enormous(nn.Linear(10, 3)), Batch([torch.randn(8, 10)], labels, labels))
    assert flops == pytest.approx(3 * 2 * 10**18 / 8)


class Data:
    def on_after_batch_transfer(self, raw: tuple[torch.Tensor, torch.Tensor, int], index: int) -> Batch:
        images, labels, _ = raw
        assert len(images) == 8  # no more than that is made into views
        return Batch([images], labels, labels)


def test_flops_take_the_views_of_a_few_examples() -> None:
    data: Any = Data()
    raw = (torch.randn(32, 10), torch.zeros(32, dtype=torch.long), 3)
    assert budget.flops_per_example(Square(nn.Linear(10, 3)), data, raw) == 2 * (2 * 10 * 3)
