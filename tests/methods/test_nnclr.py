"""NNCLR's neighbours and loss against loops, a known value and lightly; the order of its queue."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_zoo.method import Batch
from ssl_zoo.methods.nnclr import NNCLR


def make(queue_size: int = 20) -> NNCLR:
    backbone = nn.Sequential(nn.Flatten(), nn.Linear(12, 6))
    backbone.num_features = 6  # type: ignore[assignment]
    return NNCLR(backbone, 16, 8, predictor_hidden_dim=16, queue_size=queue_size, temperature=0.2)


def make_batch(count: int = 2) -> Batch:
    labels = torch.zeros(7, dtype=torch.long)
    return Batch([torch.randn(7, 3, 2, 2) for _ in range(count)], labels, labels)


def heads(method: NNCLR, view: Tensor) -> tuple[Tensor, Tensor]:
    z = method.projector(method.backbone(view))
    return z, method.predictor(z)


@torch.no_grad()
def naive(neighbours: Tensor, p: Tensor, temperature: float) -> float:
    total = 0.0
    for i in range(len(p)):
        sims = [math.exp(float(F.cosine_similarity(neighbours[i], x, dim=0)) / temperature) for x in p]
        total -= math.log(sims[i] / sum(sims)) / len(p)
    return total


def test_neighbours_and_loss_equal_lightlys() -> None:
    """lightly's NTXentLoss also contrasts within a view; its memory bank form, one bank a query, is the paper's."""
    from lightly.models.modules import NNMemoryBankModule

    method, batch = make(), make_batch()
    bank = NNMemoryBankModule(size=(20, 8))
    bank.bank = method.queue.keys.clone()
    (z1, p1), (z2, p2) = (heads(method, view) for view in batch.views)
    n1, n2 = bank(z1), bank(z2)
    torch.testing.assert_close(method.queue.nearest(z1, 1)[:, 0], n1)
    n1, n2, p1, p2 = (F.normalize(x, dim=1) for x in (n1, n2, p1, p2))
    own = torch.arange(7)
    theirs = (F.cross_entropy(n1 @ p2.T / 0.2, own) + F.cross_entropy(n2 @ p1.T / 0.2, own)) / 2
    torch.testing.assert_close(method(batch, 0.0)["loss"], theirs)


def test_loss_equals_the_loop_of_eq_3_in_both_directions() -> None:
    method, batch = make(), make_batch()
    (z1, p1), (z2, p2) = (heads(method, view) for view in batch.views)
    n1, n2 = (method.queue.nearest(z, 1)[:, 0] for z in (z1, z2))
    expected = (naive(n1, p2, 0.2) + naive(n2, p1, 0.2)) / 2
    assert method(batch, 0.0)["loss"].item() == pytest.approx(expected, rel=1e-5)


def test_one_neighbour_for_all_costs_at_least_the_log_of_the_batch() -> None:
    """A queue of one vector tells the examples apart no more: the mean of -log p over one softmax is >= log B."""
    assert make(1)(make_batch(), 0.0)["loss"].item() >= math.log(7) - 1e-6


def test_the_queue_gets_the_first_view_after_it_was_used() -> None:
    method, batch = make(), make_batch()
    before = method.queue.keys
    z = F.normalize(heads(method, batch.views[0])[0], dim=1)
    method(batch, 0.0)["loss"].backward()
    torch.testing.assert_close(method.queue.keys, torch.cat([z.detach(), before[7:]]))
    assert not method.queue.keys.requires_grad
    assert all(p.grad is not None for p in method.parameters())


def test_evaluation_leaves_the_queue_alone_and_more_views_average_the_directions() -> None:
    method, batch = make().eval(), make_batch(3)
    before = method.queue.keys.clone()
    pairs = [(0, 1), (0, 2), (1, 2)]
    two = [method(batch._replace(views=[batch.views[i], batch.views[j]]), 0.0)["loss"] for i, j in pairs]
    torch.testing.assert_close(method(batch, 0.0)["loss"], torch.stack(two).mean())
    assert torch.equal(method.queue.keys, before)


@pytest.mark.parametrize("key", ["queue_size", "temperature", "predictor_hidden_dim"])
def test_bad_values_are_refused(key: str) -> None:
    backbone = nn.Linear(2, 2)
    backbone.num_features = 2  # type: ignore[assignment]
    values: dict = {"queue_size": 8, "temperature": 0.2, "predictor_hidden_dim": 8} | {key: 0}
    with pytest.raises(ValueError, match=rf"method\.{key}"):
        NNCLR(backbone, 8, 4, **values)
