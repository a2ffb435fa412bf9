"""Gathers, means and BatchNorm of several processes equal those of one."""

import pytest
import torch
from torch import nn

from ssl_zoo import distributed, functional
from ssl_zoo.distributed import GatheredBatchNorm, all_gather, gather_batch_norm, rank
from ssl_zoo.functional import ema_copy
from tests.distributed import run as on_processes


@pytest.mark.parametrize("shape", [(16, 5), (16, 5, 3, 4)])
def test_gathered_batch_norm_equals_batch_norm_on_one_process(shape: tuple[int, ...]) -> None:
    plain = nn.BatchNorm1d(5) if len(shape) == 2 else nn.BatchNorm2d(5)
    nn.init.uniform_(plain.weight)
    gathered = GatheredBatchNorm(ema_copy(plain).requires_grad_(True))
    x = torch.randn(shape) * 3 + 1
    mine, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    for _ in range(2):
        a, b = gathered(mine), plain(theirs)
    torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)
    (a.sin().sum()).backward()
    (b.sin().sum()).backward()
    torch.testing.assert_close(mine.grad, theirs.grad, atol=1e-4, rtol=1e-4)
    assert gathered.state_dict().keys() == plain.state_dict().keys()
    for key, value in plain.state_dict().items():
        torch.testing.assert_close(gathered.state_dict()[key], value)
    torch.testing.assert_close(gathered.eval()(x), plain.eval()(x))


def _gathered_gradient() -> tuple[torch.Tensor, torch.Tensor, int]:
    x = (torch.arange(4.0).view(2, 2) + 10 * rank()).requires_grad_()
    everything = all_gather(x)
    # rank 0 weighs all rows by 1, rank 1 by 2: each row's gradient must be their sum
    (everything * (1 + rank())).sum().backward()
    return everything.detach(), x.grad, distributed.world_size()


def test_all_gather_sums_the_gradients_of_all_processes() -> None:
    results = on_processes(2, _gathered_gradient)
    for gathered, gradient, world in results:
        assert world == 2
        assert gathered.tolist() == [[0, 1], [2, 3], [10, 11], [12, 13]]
        assert torch.equal(gradient, torch.full((2, 2), 3.0))
    x = torch.randn(3, requires_grad=True)
    assert all_gather(x) is x


def _norm_share(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]:
    net = nn.Sequential(nn.BatchNorm1d(x.shape[1]))
    gather_batch_norm(net)
    share = x.chunk(distributed.world_size())[rank()].clone().requires_grad_()
    out = net(share)
    out.sin().sum().backward()
    return out.detach(), share.grad, net.state_dict()


def test_gathered_batch_norm_equals_the_global_batch() -> None:
    x = torch.randn(12, 4) * 2 + 1
    ((whole, gradient, state),) = [_norm_share(x)]
    shares = on_processes(2, _norm_share, x)
    torch.testing.assert_close(torch.cat([s[0] for s in shares]), whole, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(torch.cat([s[1] for s in shares]), gradient, atol=1e-5, rtol=1e-4)
    for key, value in state.items():
        torch.testing.assert_close(shares[1][2][key], value)


def _draws() -> tuple[torch.Tensor, ...]:
    torch.manual_seed(7 + rank())
    shared = distributed.broadcast(torch.randn(3))
    scores = torch.arange(24.0).view(8, 3).sin().chunk(distributed.world_size())[rank()]
    queued = torch.arange(15.0).view(5, 3).cos()
    balanced = torch.cat([functional.sinkhorn(scores, 0.1, 3), functional.sinkhorn(scores, 0.1, 3, queued=queued)], 1)
    values = torch.arange(8.0).chunk(distributed.world_size())[rank()]
    mean = distributed.all_reduce_mean(functional.mean_over(values, values > 2))
    return shared, balanced, mean, distributed.rand_rows(8 // distributed.world_size(), 2, device=torch.device("cpu"))


def test_two_processes_draw_and_balance_as_one() -> None:
    one = _draws()
    first, second = on_processes(2, _draws)
    assert torch.equal(first[0], one[0])
    assert torch.equal(second[0], one[0])
    torch.testing.assert_close(torch.cat([first[1], second[1]]), one[1])
    assert first[2] == second[2] == one[2] == 5  # the mean of 3 to 7
    assert torch.equal(torch.cat([first[3], second[3]]), one[3])
