"""SwAV's loss against a loop and lightly; Sinkhorn with a queue; freezing; the queue's clock."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_zoo.method import Batch
from ssl_zoo.methods.swav import SwAV


def make(queue_size: int = 0, queue_from: float = 0.5, freeze_until: float = 0.1) -> SwAV:
    backbone = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, 6))
    backbone.num_features = 6  # type: ignore[assignment]
    return SwAV(backbone, 16, 8, 10, 0.1, 0.05, 3, freeze_until, queue_size, queue_from)


def make_batch(count: int = 7, local: int = 0) -> Batch:
    sizes = [4, 4] + [2] * local
    labels = torch.zeros(count, dtype=torch.long)
    return Batch([torch.randn(count, 3, size, size) for size in sizes], labels, labels)


def scores_of(method: SwAV, batch: Batch) -> list[Tensor]:
    """Cosines with the prototypes; BatchNorm sees all views together."""
    z = method.projector(torch.cat([method.backbone(view) for view in batch.views]))
    return list((F.normalize(z, dim=1) @ F.normalize(method.prototypes.weight, dim=1).T).chunk(len(batch.views)))


def naive(scores: list[Tensor], num_global: int, queued: Tensor) -> float:
    """Eqs. 1-6 with plain exponentials and loops."""
    total, count = 0.0, 0
    for i in range(num_global):
        q = torch.exp(torch.cat([scores[i], queued]) / 0.05)
        for _ in range(3):
            q = q / q.sum(0)
            q = q / q.sum(1, keepdim=True)
        for j in range(len(scores)):
            if i != j:
                for row, target in zip(scores[j], q, strict=False):
                    p = torch.exp(row / 0.1)
                    total -= float((target * torch.log(p / p.sum())).sum()) / len(scores[j])
                count += 1
    return total / count


@pytest.mark.parametrize("local", [0, 3])
def test_loss_equals_the_loop(local: int) -> None:
    method, batch = make(), make_batch(local=local)
    expected = naive(scores_of(method, batch), 2, torch.zeros(0, 10))
    assert method(batch, 0.5)["loss"].item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("local", [0, 2])
def test_loss_equals_lightly(local: int) -> None:
    from lightly.loss import SwaVLoss

    method, batch = make(), make_batch(local=local)
    scores = scores_of(method, batch)
    torch.testing.assert_close(method(batch, 0.5)["loss"], SwaVLoss()(scores[:2], scores[2:])[0])


def test_loss_with_a_queue_equals_the_loop_and_lightly() -> None:
    from lightly.loss import SwaVLoss

    method, batch = make(queue_size=20, queue_from=0.5), make_batch()
    assert method.queue is not None
    queued = method.queue.keys @ F.normalize(method.prototypes.weight, dim=1).T
    scores, without = scores_of(method, batch), method.eval()(batch, 0.4)["loss"]
    method.train()
    loss = method(batch, 0.5)["loss"]
    assert loss.item() == pytest.approx(naive(scores, 2, queued.detach()), rel=1e-4)
    torch.testing.assert_close(loss, SwaVLoss()(scores, [], [queued, queued])[0])
    assert without.item() != pytest.approx(loss.item(), rel=1e-3)


def test_the_queue_holds_the_first_views_projections_and_moves_in_training_only() -> None:
    method, batch = make(queue_size=20, queue_from=0.9), make_batch()
    assert method.queue is not None
    before = method.queue.keys.clone()
    z = method.projector(torch.cat([method.backbone(view) for view in batch.views]))
    method(batch, 0.0)
    torch.testing.assert_close(method.queue.keys[:7], F.normalize(z[:7], dim=1))
    assert torch.equal(method.queue.keys[7:], before[7:])
    full = method.queue.keys.clone()
    method.eval()(batch, 0.0)
    assert torch.equal(method.queue.keys, full)


def test_equal_scores_give_log_k() -> None:
    method, batch = make(), make_batch()
    with torch.no_grad():
        method.prototypes.weight.copy_(torch.ones(10, 8))
    assert method(batch, 0.5)["loss"].item() == pytest.approx(math.log(10), abs=1e-5)


def test_prototypes_are_frozen_early_and_learn_later() -> None:
    method, batch = make(freeze_until=0.1), make_batch()
    for progress, learns in ((0.05, False), (0.1, True)):
        method.zero_grad()
        method(batch, progress)["loss"].backward()
        grad = method.prototypes.weight.grad
        assert grad is not None
        assert bool(grad.any()) == learns
        assert all(p.grad is not None and p.grad.any() for p in method.backbone.parameters())


@pytest.mark.parametrize(("key", "value"), [("queue_size", -1), ("queue_from", 1.5), ("freeze_until", -0.1)])
def test_bad_values_are_refused(key: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"method\.{key}"):
        make(**{key: value})  # type: ignore[arg-type]
