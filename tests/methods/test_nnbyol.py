"""NNBYOL's loss against a loop and lightly; its queue, its target and its limit."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ssl_zoo.method import Batch
from ssl_zoo.methods.byol import BYOL
from ssl_zoo.methods.nnbyol import NNBYOL
from ssl_zoo.schedules import cosine_schedule


def make() -> NNBYOL:
    backbone = nn.Sequential(nn.Flatten(), nn.Linear(12, 6))
    backbone.num_features = 6  # type: ignore[assignment]
    return NNBYOL(backbone, hidden_dim=16, out_dim=8, queue_size=20, ema_decay=0.9)


def make_batch() -> Batch:
    labels = torch.zeros(7, dtype=torch.long)
    return Batch([torch.randn(7, 3, 2, 2), torch.randn(7, 3, 2, 2)], labels, labels)


@torch.no_grad()
def test_loss_is_the_squared_distance_to_the_others_neighbour_in_both_directions() -> None:
    method, batch = make(), make_batch()
    keys, total = method.queue.keys, 0.0
    for mine, other in (batch.views, reversed(batch.views)):
        p = F.normalize(method.predictor(method.projector(method.backbone(mine))), dim=1)
        for a, t in zip(p, F.normalize(method.target(other), dim=1), strict=True):
            neighbour = keys[(keys - t).square().sum(dim=1).argmin()]
            total += float((a - neighbour).square().sum()) / len(p)
    assert method(batch, 0.0)["loss"].item() == pytest.approx(total, rel=1e-5)


def test_loss_is_four_plus_four_times_lightlys() -> None:
    from lightly.loss import NegativeCosineSimilarity
    from lightly.models.modules import NNMemoryBankModule

    method, batch = make(), make_batch()
    bank = NNMemoryBankModule(size=(20, 8))
    bank.bank = method.queue.keys.clone()
    p1, p2 = (method.predictor(method.projector(method.backbone(v))) for v in batch.views)
    t1, t2 = (method.target(v) for v in batch.views)
    half = 0.5 * (NegativeCosineSimilarity()(p1, bank(t2)) + NegativeCosineSimilarity()(p2, bank(t1)))
    torch.testing.assert_close(method(batch, 0.0)["loss"], 4 + 4 * half)


def test_a_queue_that_holds_the_batch_makes_it_byol() -> None:
    method, batch = make(), make_batch()
    byol = BYOL(method.backbone, 16, 8, 0.9)
    byol.projector, byol.predictor, byol.target = method.projector, method.predictor, method.target
    method.queue.keys = torch.cat([F.normalize(method.target(view), dim=1) for view in batch.views])
    torch.testing.assert_close(method(batch, 0.0)["loss"], byol(batch, 0.0)["loss"])


def test_the_queue_gets_the_targets_projections_of_the_first_view_and_the_target_no_gradient() -> None:
    method, batch = make(), make_batch()
    before = method.queue.keys
    method.eval()(batch, 0.0)
    assert torch.equal(method.queue.keys, before)
    method.train()(batch, 0.0)["loss"].backward()
    pushed = F.normalize(method.target(batch.views[0]), dim=1)
    torch.testing.assert_close(method.queue.keys, torch.cat([pushed, before[7:]]))
    assert all(p.grad is None for p in method.target.parameters())
    assert all(p.grad is not None for p in method.parameters() if p.requires_grad)


def test_the_target_moves_by_the_scheduled_decay() -> None:
    method = make()
    before = [p.clone() for p in method.target.parameters()]
    with torch.no_grad():
        for p in nn.Sequential(method.backbone, method.projector).parameters():
            p.add_(1)
    method.after_step(0.3)
    for now, old in zip(method.target.parameters(), before, strict=True):
        torch.testing.assert_close(now, old + 1 - cosine_schedule(0.9, 1.0, 0.3), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("key", ["queue_size", "ema_decay"])
def test_bad_values_are_refused(key: str) -> None:
    backbone = nn.Linear(2, 2)
    backbone.num_features = 2  # type: ignore[assignment]
    values: dict = {"queue_size": 8, "ema_decay": 0.9} | {key: 0}
    with pytest.raises(ValueError, match=rf"method\.{key}"):
        NNBYOL(backbone, 8, 4, **values)
