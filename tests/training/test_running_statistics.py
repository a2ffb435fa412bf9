"""Running statistics under activation checkpointing are those without it, and so are loss and gradients."""

from typing import Any

import pytest
import torch

from ssl_zoo.backbones.image import image_backbone
from ssl_zoo.training.running_statistics import KeepStatistics

NARROW = {"channels": [8, 16, 24, 32], "stem_width": 8}


def step(keep: Any, **options: Any) -> tuple[list[torch.Tensor], dict[str, torch.Tensor]]:
    torch.manual_seed(0)
    network: Any = image_backbone("resnet10t", 3, 16, **NARROW, **options)
    loss = network(torch.randn(6, 3, 16, 16)).square().sum()
    if keep is not None:
        keep.on_before_backward(None, network, loss)
    loss.backward()
    if keep is not None:
        keep.on_after_backward(None, network)
    gradients = [p.grad for p in network.parameters()]
    return [loss.detach(), *gradients], {k: v for k, v in network.state_dict().items() if "running" in k or "num" in k}


def test_a_step_with_checkpointing_is_one_without() -> None:
    plain, statistics = step(None)
    found, kept = step(KeepStatistics(), grad_checkpointing=True)
    torch.testing.assert_close(found, plain)
    torch.testing.assert_close(kept, statistics)


def test_without_it_they_move_twice() -> None:
    found, moved = step(None, grad_checkpointing=True)
    plain, statistics = step(None)
    torch.testing.assert_close(found, plain)
    with pytest.raises(AssertionError):
        torch.testing.assert_close(moved, statistics)
