"""Two processes with half the batch each have the loss and the gradient of one process with all of it."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from ssl_zoo.functional import all_reduce_mean, gather_batch_norm, rank, world_size
from ssl_zoo.method import Batch, Method
from ssl_zoo.methods.byol import BYOL
from ssl_zoo.methods.simclr import SimCLR
from ssl_zoo.methods.supervised import Supervised
from tests import distributed

TOLERANCE = 2e-5  # relative to the largest gradient


def backbone() -> nn.Module:
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 12),
    )
    net.num_features = 12  # type: ignore[assignment]
    return net


def simclr() -> Method:
    return SimCLR(backbone(), hidden_dim=16, out_dim=8, temperature=0.2)


def byol() -> Method:
    return BYOL(backbone(), hidden_dim=16, out_dim=8, ema_decay=0.9)


def supervised() -> Method:
    return Supervised(backbone(), num_classes=3, label_smoothing=0.1)


def step(make: Callable[[], Method]) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
    """Loss, gradients as DistributedDataParallel would average them, and buffers after one update."""
    torch.manual_seed(0)
    method = make()
    gather_batch_norm(method)
    views = [torch.randn(16, 3, 6, 6).chunk(world_size())[rank()] for _ in range(2)]
    labels = (torch.arange(16) % 3).chunk(world_size())[rank()]
    loss = method(Batch(views, labels, labels), 0.3)["loss"]
    loss.backward()
    gradients = {n: all_reduce_mean(p.grad).clone() for n, p in method.named_parameters() if p.grad is not None}
    optimizer = torch.optim.SGD([p for p in method.parameters() if p.grad is not None], lr=0.1)
    for name, parameter in method.named_parameters():
        if parameter.grad is not None:
            parameter.grad = gradients[name]
    optimizer.step()
    method.after_step(0.3)
    return all_reduce_mean(loss.detach()), gradients, method.state_dict()


@pytest.mark.parametrize("make", [simclr, byol, supervised])
def test_two_processes_equal_one(make: Callable[[], Method]) -> None:
    loss, gradients, state = step(make)
    for shared_loss, shared_gradients, shared_state in distributed.run(2, step, make):
        assert shared_gradients.keys() == gradients.keys()
        largest = max(float(g.abs().max()) for g in gradients.values())
        error = max(float((shared_gradients[name] - g).abs().max()) for name, g in gradients.items()) / largest
        print(
            f"{make.__name__}: loss differs by {float(shared_loss - loss):.1e}, gradient by {error:.1e} of its largest"
        )
        assert float(shared_loss) == pytest.approx(float(loss), rel=TOLERANCE)
        assert error < TOLERANCE
        for name, value in state.items():
            torch.testing.assert_close(shared_state[name], value, atol=1e-4, rtol=1e-4)
