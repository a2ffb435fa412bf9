"""MoCo v3's loss against a loop, a known value and lightly; its keys and target."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_zoo.method import Batch
from ssl_zoo.methods.mocov3 import MoCoV3
from ssl_zoo.schedules import cosine_schedule


def make(temperature: float = 0.2) -> MoCoV3:
    backbone = nn.Sequential(nn.Flatten(), nn.Linear(12, 6))
    backbone.num_features = 6  # type: ignore[assignment]
    return MoCoV3(backbone, hidden_dim=16, out_dim=8, temperature=temperature, ema_decay=0.9)


def make_batch(count: int = 2) -> Batch:
    labels = torch.zeros(7, dtype=torch.long)
    return Batch([torch.randn(7, 3, 2, 2) for _ in range(count)], labels, labels)


@torch.no_grad()
def naive(q: Tensor, k: Tensor, temperature: float) -> float:
    total = 0.0
    for i in range(len(q)):
        sims = [math.exp(float(F.cosine_similarity(q[i], key, dim=0)) / temperature) for key in k]
        total -= 2 * temperature * math.log(sims[i] / sum(sims)) / len(q)
    return total


@pytest.mark.parametrize("temperature", [0.1, 0.2, 1.0])
def test_loss_is_that_of_algorithm_1_in_both_directions(temperature: float) -> None:
    method, batch = make(temperature), make_batch()
    loss = method(batch, 0.0)["loss"]
    q1, q2 = (method.predictor(method.projector(method.backbone(view))) for view in batch.views)
    k1, k2 = (method.target(view) for view in batch.views)
    assert loss.item() == pytest.approx(naive(q1, k2, temperature) + naive(q2, k1, temperature), rel=1e-5)


def test_collapsed_keys_cost_the_log_of_their_number() -> None:
    loss = make(0.2).contrast(torch.randn(10, 4), torch.ones(10, 4))
    assert loss.item() == pytest.approx(0.4 * math.log(10), abs=1e-5)


def test_contrast_equals_lightlys_with_the_keys_as_a_memory_bank() -> None:
    """lightly's NTXentLoss has one positive and a bank of negatives; ours is 2 * temperature times that."""
    from lightly.loss import NTXentLoss

    q, k = torch.randn(9, 8), torch.randn(9, 8)
    theirs = []
    for i in range(9):
        criterion = NTXentLoss(temperature=0.2, memory_bank_size=(8, 8))
        criterion.memory_bank.bank = F.normalize(torch.cat([k[:i], k[i + 1 :]]), dim=1)
        theirs.append(criterion(q[i : i + 1], k[i : i + 1]))
    torch.testing.assert_close(make(0.2).contrast(q, k), 0.4 * torch.stack(theirs).mean())


def test_more_views_cost_twice_the_mean_over_the_directions() -> None:
    method, batch = make(), make_batch(3)
    pairs = [(0, 1), (0, 2), (1, 2)]
    two = [method(batch._replace(views=[batch.views[i], batch.views[j]]), 0.0)["loss"] for i, j in pairs]
    torch.testing.assert_close(method(batch, 0.0)["loss"], torch.stack(two).mean())


def test_the_target_gets_no_gradient_and_starts_as_the_online_network() -> None:
    method = make()
    online = nn.Sequential(method.backbone, method.projector)
    for mine, theirs in zip(method.target.parameters(), online.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    method(make_batch(), 0.0)["loss"].backward()
    assert all(p.grad is None for p in method.target.parameters())
    assert all(p.grad is not None for p in [*online.parameters(), *method.predictor.parameters()])


@pytest.mark.parametrize("progress", [0.0, 0.3, 0.999])
def test_the_target_moves_by_the_scheduled_decay(progress: float) -> None:
    method = make()
    before = [p.clone() for p in method.target.parameters()]
    with torch.no_grad():
        for p in nn.Sequential(method.backbone, method.projector).parameters():
            p.add_(1)
    method.after_step(progress)
    for now, old in zip(method.target.parameters(), before, strict=True):
        torch.testing.assert_close(now, old + 1 - cosine_schedule(0.9, 1.0, progress), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("key", ["temperature", "ema_decay"])
def test_bad_values_are_refused(key: str) -> None:
    backbone = nn.Linear(2, 2)
    backbone.num_features = 2  # type: ignore[assignment]
    values = {"temperature": 0.2, "ema_decay": 0.9} | {key: 0.0}
    with pytest.raises(ValueError, match=rf"method\.{key}"):
        MoCoV3(backbone, 8, 4, **values)
