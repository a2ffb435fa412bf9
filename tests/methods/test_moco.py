"""MoCo's loss against a loop, a known value and lightly; the order of its queue; its target."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_zoo.method import Batch
from ssl_zoo.methods.moco import MoCo, queue_info_nce


def make(queue_size: int = 20) -> MoCo:
    backbone = nn.Sequential(nn.Flatten(), nn.Linear(12, 6))
    backbone.num_features = 6  # type: ignore[assignment]
    return MoCo(backbone, hidden_dim=16, out_dim=8, queue_size=queue_size, temperature=0.2, ema_decay=0.9)


def make_batch(count: int = 2) -> Batch:
    labels = torch.zeros(7, dtype=torch.long)
    return Batch([torch.randn(7, 3, 2, 2) for _ in range(count)], labels, labels)


def unit(*shape: int) -> Tensor:
    return F.normalize(torch.randn(*shape), dim=1)


@pytest.mark.parametrize("temperature", [0.07, 0.2, 1.0])
def test_contrast_equals_the_loop_of_eq_1(temperature: float) -> None:
    q, k, negatives = torch.randn(6, 8), unit(6, 8), unit(11, 8)
    total = 0.0
    for query, key in zip(F.normalize(q, dim=1), k, strict=True):
        sims = [math.exp(float(query @ other) / temperature) for other in [key, *negatives]]
        total -= math.log(sims[0] / sum(sims)) / 6
    assert queue_info_nce(q, k, negatives, temperature, None).item() == pytest.approx(total, rel=1e-5)


def test_contrast_equals_lightly_with_a_memory_bank() -> None:
    from lightly.loss import NTXentLoss

    q, k, negatives = torch.randn(6, 8), torch.randn(6, 8), unit(11, 8)
    criterion = NTXentLoss(temperature=0.2, memory_bank_size=(11, 8))
    criterion.memory_bank.bank = negatives.clone()
    torch.testing.assert_close(queue_info_nce(q, F.normalize(k, dim=1), negatives, 0.2, None), criterion(q, k))


def test_contrast_of_collapsed_projections_is_log_of_the_candidates() -> None:
    same = F.normalize(torch.ones(10, 4), dim=1)
    assert queue_info_nce(same, same[:5].repeat(2, 1), same[:6], 0.2, None).item() == pytest.approx(
        math.log(7), abs=1e-5
    )


def test_contrast_is_blind_to_the_order_of_the_queue_and_the_scale_of_queries() -> None:
    q, k, negatives = torch.randn(6, 8), unit(6, 8), unit(11, 8)
    loss = queue_info_nce(q, k, negatives, 0.2, None)
    torch.testing.assert_close(queue_info_nce(5 * q, k, negatives[torch.randperm(11)], 0.2, None), loss)


def test_keys_of_the_querys_own_example_are_no_negatives() -> None:
    """A second epoch of the same 7 examples: the loss is that of a loop over the keys of the other six."""
    method, first, second = make(20), make_batch(), make_batch()
    first, second = (
        batch._replace(indices=order) for batch, order in ((first, torch.arange(7)), (second, torch.arange(6, -1, -1)))
    )
    method(first, 0.0)
    keys, of = method.queue.keys.clone(), [*range(7), *range(7), *[-1] * 6]
    q = [F.normalize(method.projector(method.backbone(view)), dim=1) for view in second.views]
    k = [F.normalize(method.target(view), dim=1) for view in second.views]
    total = 0.0
    for i, j in ((0, 1), (1, 0)):
        for b, example in enumerate(second.indices.tolist()):
            others = [keys[n] for n in range(20) if of[n] != example]
            assert len(others) == 18
            sims = [math.exp(float((q[j][b] @ key).detach()) / 0.2) for key in [k[i][b], *others]]
            total -= math.log(sims[0] / sum(sims)) / 14
    assert method(second, 0.0)["loss"].item() == pytest.approx(total, rel=1e-5)


def test_loss_is_the_mean_over_both_directions() -> None:
    method, batch = make(), make_batch()
    keys = method.queue.keys
    q1, q2 = (method.projector(method.backbone(view)) for view in batch.views)
    k1, k2 = (F.normalize(method.target(view), dim=1) for view in batch.views)
    expected = (queue_info_nce(q1, k2, keys, 0.2, None) + queue_info_nce(q2, k1, keys, 0.2, None)) / 2
    torch.testing.assert_close(method(batch, 0.0)["loss"], expected)


def test_the_queue_holds_the_keys_of_the_last_steps_view_by_view() -> None:
    method, start = make(20), make(20).queue.keys
    method.queue.keys = start
    first, second = make_batch(), make_batch()
    method(first, 0.0)
    expected = torch.cat([F.normalize(method.target(view), dim=1) for view in first.views])
    torch.testing.assert_close(method.queue.keys, torch.cat([expected, start[14:]]))
    method(second, 0.0)
    newest = torch.cat([F.normalize(method.target(view), dim=1) for view in second.views])
    torch.testing.assert_close(method.queue.keys, torch.cat([newest[6:], expected[8:], newest[:6]]))
    assert not method.queue.keys.requires_grad


def test_evaluation_leaves_the_queue_alone() -> None:
    method = make().eval()
    before = method.queue.keys.clone()
    method(make_batch(), 0.0)
    assert torch.equal(method.queue.keys, before)


def test_a_queue_shorter_than_the_batch_works() -> None:
    method = make(3)
    for _ in range(3):
        method(make_batch(), 0.0)["loss"].backward()
    assert method.queue.keys.shape == (3, 8)


def test_the_target_gets_no_gradient_and_moves_by_the_decay() -> None:
    method = make()
    method(make_batch(), 0.0)["loss"].backward()
    assert all(p.grad is None for p in method.target.parameters())
    assert all(p.grad is not None for p in nn.Sequential(method.backbone, method.projector).parameters())
    before = [p.clone() for p in method.target.parameters()]
    with torch.no_grad():
        for p in nn.Sequential(method.backbone, method.projector).parameters():
            p.add_(1)
    method.after_step(0.5)
    for now, old in zip(method.target.parameters(), before, strict=True):
        torch.testing.assert_close(now, old + 0.1, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("key", ["queue_size", "temperature", "ema_decay"])
def test_bad_values_are_refused(key: str) -> None:
    backbone = nn.Linear(2, 2)
    backbone.num_features = 2  # type: ignore[assignment]
    values: dict = {"queue_size": 8, "temperature": 0.2, "ema_decay": 0.9} | {key: 0}
    with pytest.raises(ValueError, match=rf"method\.{key}"):
        MoCo(backbone, 8, 4, **values)
