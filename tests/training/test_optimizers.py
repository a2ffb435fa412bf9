"""LARS adapts by the shape of a parameter, not by its weight decay."""

from functools import partial

import pytest
import torch
from torch import nn

from ssl_zoo.learner import Learner
from ssl_zoo.method import Method
from ssl_zoo.training.optimizers import lars


def one_step(decay: float) -> tuple[nn.Module, list[torch.Tensor], torch.optim.Optimizer]:
    """A network after one step with all gradients equal to 2, its parameters before, and the optimizer."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4))
    make = partial(lars, lr=0.5, momentum=0.9, weight_decay=decay, trust_coeff=0.02)
    learner = Learner(Method(net), make, lambda progress: 1.0, seed=0, total_steps=1)
    before = [p.detach().clone() for p in net.parameters()]
    optimizer = learner.configure_optimizers()
    for p in net.parameters():
        p.grad = torch.full_like(p, 2.0)
    optimizer.step()
    return net, before, optimizer


@pytest.mark.parametrize("decay", [0.0, 0.01])
def test_matrices_take_adapted_steps_with_and_without_weight_decay(decay: float) -> None:
    net, before, _ = one_step(decay)
    for old, now in zip(before, net.parameters(), strict=True):
        gradient = torch.full_like(old, 2.0)
        rate = torch.tensor(0.5)
        if old.ndim > 1:
            rate *= 0.02 * old.norm() / (gradient.norm() + decay * old.norm())  # You et al., Eq. 6
            gradient += decay * old
        torch.testing.assert_close(now.detach(), old - rate * gradient)


def test_every_parameter_is_in_one_group_and_keeps_its_settings() -> None:
    net, _, optimizer = one_step(0.01)
    groups = optimizer.param_groups
    assert sorted(id(p) for g in groups for p in g["params"]) == sorted(map(id, net.parameters()))
    assert {(g["weight_decay"], g["always_adapt"]) for g in groups} == {(0.0, False), (0.01, True)}
    assert all(g["peak_lr"] == 0.5 and g["trust_coeff"] == 0.02 for g in groups)


def test_it_takes_plain_parameters() -> None:
    optimizer = lars([nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(2, 2))], lr=0.1)
    assert [g["always_adapt"] for g in optimizer.param_groups] == [False, True]
