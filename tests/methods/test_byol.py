"""BYOL's loss against a loop and lightly; its target against the paper's schedule."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ssl_zoo.method import Batch
from ssl_zoo.methods.byol import BYOL
from ssl_zoo.schedules import cosine_schedule


def make() -> BYOL:
    backbone = nn.Sequential(nn.Flatten(), nn.Linear(12, 6))
    backbone.num_features = 6  # type: ignore[assignment]
    return BYOL(backbone, hidden_dim=16, out_dim=8, ema_decay=0.9)


def make_batch() -> Batch:
    labels = torch.zeros(7, dtype=torch.long)
    return Batch([torch.randn(7, 3, 2, 2), torch.randn(7, 3, 2, 2)], labels, labels)


def test_loss_is_eq_2_in_both_directions() -> None:
    method, batch = make(), make_batch()
    loss = method(batch, 0.0)["loss"]
    total = 0.0
    for mine, other in (batch.views, reversed(batch.views)):
        p = method.predictor(method.projector(method.backbone(mine)))
        t = method.target(other)
        for a, b in zip(p, t, strict=True):
            total += float((F.normalize(a, dim=0) - F.normalize(b, dim=0)).square().sum()) / len(p)
    assert loss.item() == pytest.approx(total, rel=1e-5)


def test_loss_is_four_plus_four_times_lightlys() -> None:
    """lightly's BYOL example sums -cos over the directions and halves it: ours is 4 + 4 times that."""
    from lightly.loss import NegativeCosineSimilarity

    method, batch = make(), make_batch()
    loss = method(batch, 0.0)["loss"]
    p1, p2 = (method.predictor(method.projector(method.backbone(v))) for v in batch.views)
    t1, t2 = (method.target(v) for v in batch.views)
    half = 0.5 * (NegativeCosineSimilarity()(p1, t2) + NegativeCosineSimilarity()(p2, t1))
    torch.testing.assert_close(loss, 4 + 4 * half)


def test_the_target_gets_no_gradient_and_starts_as_the_online_network() -> None:
    method = make()
    online = nn.Sequential(method.backbone, method.projector)
    for mine, theirs in zip(method.target.parameters(), online.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    method(make_batch(), 0.0)["loss"].backward()
    assert all(p.grad is None for p in method.target.parameters())
    assert all(p.grad is not None for p in online.parameters())


@pytest.mark.parametrize("progress", [0.0, 0.3, 0.999])
def test_the_target_moves_by_the_scheduled_decay(progress: float) -> None:
    method = make()
    with torch.no_grad():
        for p in method.backbone.parameters():
            p.add_(1)
    before = [p.clone() for p in method.target[0].parameters()]  # type: ignore[index, union-attr]
    method.after_step(progress)
    moved = 1 - cosine_schedule(0.9, 1.0, progress)
    for now, old in zip(method.target[0].parameters(), before, strict=True):  # type: ignore[index, union-attr]
        torch.testing.assert_close(now, old + moved, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("decay", [0.0, 1.0, -0.1])
def test_bad_decay_is_refused(decay: float) -> None:
    backbone = nn.Linear(2, 2)
    backbone.num_features = 2  # type: ignore[assignment]
    with pytest.raises(ValueError, match=r"method\.ema_decay"):
        BYOL(backbone, 8, 4, decay)
