"""ReSSL's relations against a loop, a known value, its limits; who sees which view; the order of its queue."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_zoo.method import Batch
from ssl_zoo.methods.ressl import ReSSL, relations


def make(queue_size: int = 20, temperature: float = 0.1, teacher_temperature: float = 0.04) -> ReSSL:
    backbone = nn.Sequential(nn.Flatten(), nn.Linear(12, 6))
    backbone.num_features = 6  # type: ignore[assignment]
    return ReSSL(backbone, 16, 8, queue_size, temperature, teacher_temperature, ema_decay=0.9)


def make_batch(count: int = 2) -> Batch:
    labels = torch.zeros(7, dtype=torch.long)
    return Batch([torch.randn(7, 3, 2, 2) for _ in range(count)], labels, labels)


@torch.no_grad()
def softmax(z: Tensor, keys: Tensor, temperature: float) -> list[float]:
    sims = [math.exp(float(F.cosine_similarity(z, key, dim=0)) / temperature) for key in keys]
    return [sim / sum(sims) for sim in sims]


def test_loss_equals_the_loop_of_the_paper() -> None:
    method, batch = make(), make_batch()
    keys = method.queue.keys
    teacher, student = method.teacher(batch.views[0]), method.projector(method.backbone(batch.views[1]))
    total = 0.0
    for t, z in zip(teacher, student, strict=True):
        goal, guess = softmax(t, keys, 0.04), softmax(z, keys, 0.1)
        total -= sum(a * math.log(b) for a, b in zip(goal, guess, strict=True)) / 7
    assert method(batch, 0.0)["loss"].item() == pytest.approx(total, rel=1e-5)


def test_loss_is_torchs_cross_entropy_with_soft_targets() -> None:
    method, batch = make(), make_batch()
    keys = method.queue.keys
    t = F.normalize(method.teacher(batch.views[0]), dim=1) @ keys.T / 0.04
    z = F.normalize(method.projector(method.backbone(batch.views[1])), dim=1) @ keys.T / 0.1
    torch.testing.assert_close(method(batch, 0.0)["loss"], F.cross_entropy(z, t.softmax(dim=1)))


def test_an_examples_own_keys_are_left_out_of_its_relations() -> None:
    """In a second epoch of 7 examples the loss is torch's cross-entropy over the keys of all others."""
    method, first, second = make(12), make_batch(), make_batch()
    first = first._replace(indices=torch.arange(7))
    second = second._replace(indices=torch.tensor([3, 1, 0, 2, 6, 5, 4]))
    method(first, 0.0)
    keys, of = method.queue.keys.clone(), torch.tensor([*range(7), *[-1] * 5])
    t = F.normalize(method.teacher(second.views[0]), dim=1) @ keys.T / 0.04
    z = F.normalize(method.projector(method.backbone(second.views[1])), dim=1) @ keys.T / 0.1
    losses = []
    for b, example in enumerate(second.indices):
        others = of != example
        assert others.sum() == 11
        losses.append(F.cross_entropy(z[b][others], t[b][others].softmax(dim=0)))
    loss = method(second, 0.0)["loss"]
    torch.testing.assert_close(loss, torch.stack(losses).mean())
    loss.backward()
    assert all(p.grad.isfinite().all() for p in method.projector.parameters())


def test_a_queue_of_equal_keys_costs_the_log_of_their_number() -> None:
    method = make(12)
    method.queue.keys = F.normalize(torch.ones(12, 8), dim=1)
    assert method(make_batch(), 0.0)["loss"].item() == pytest.approx(math.log(12), abs=1e-5)


def test_the_queue_may_be_permuted() -> None:
    method, batch = make().eval(), make_batch()
    loss = method(batch, 0.0)["loss"]
    method.queue.keys = method.queue.keys[torch.randperm(20)]
    torch.testing.assert_close(method(batch, 0.0)["loss"], loss)


def test_a_very_sharp_teacher_asks_for_its_nearest_neighbour() -> None:
    """In the limit of temperature 0 the loss is cross-entropy with the nearest key as the class."""
    method, batch = make(teacher_temperature=1e-6), make_batch()
    keys = method.queue.keys
    nearest = (method.teacher(batch.views[0]) @ keys.T).argmax(dim=1)
    logs = relations(method.projector(method.backbone(batch.views[1])), keys, 0.1, torch.zeros(7, 20, dtype=torch.bool))
    torch.testing.assert_close(method(batch, 0.0)["loss"], F.nll_loss(logs, nearest))


def test_the_student_never_sees_the_first_view_and_more_views_average() -> None:
    method, batch = make().eval(), make_batch(3)
    weak, first, second = batch.views
    two = [method(batch._replace(views=[weak, strong]), 0.0)["loss"] for strong in (first, second)]
    torch.testing.assert_close(method(batch, 0.0)["loss"], torch.stack(two).mean())
    weak.requires_grad_()
    method(batch, 0.0)["loss"].backward()
    assert weak.grad is None
    assert all(p.grad is None for p in method.teacher.parameters())
    assert all(p.grad is not None for p in nn.Sequential(method.backbone, method.projector).parameters())


def test_the_queue_gets_what_the_teacher_made_of_the_first_view_in_training_only() -> None:
    method, batch = make(), make_batch()
    before = method.queue.keys
    method.eval()(batch, 0.0)
    assert torch.equal(method.queue.keys, before)
    method.train()(batch, 0.0)
    pushed = F.normalize(method.teacher(batch.views[0]), dim=1)
    torch.testing.assert_close(method.queue.keys, torch.cat([pushed, before[7:]]))


def test_the_teacher_moves_by_the_decay() -> None:
    method = make()
    before = [p.clone() for p in method.teacher.parameters()]
    with torch.no_grad():
        for p in nn.Sequential(method.backbone, method.projector).parameters():
            p.add_(1)
    method.after_step(0.7)
    for now, old in zip(method.teacher.parameters(), before, strict=True):
        torch.testing.assert_close(now, old + 0.1, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("key", ["queue_size", "temperature", "ema_decay"])
def test_bad_values_are_refused(key: str) -> None:
    backbone = nn.Linear(2, 2)
    backbone.num_features = 2  # type: ignore[assignment]
    values: dict = {"queue_size": 8, "temperature": 0.1, "teacher_temperature": 0.04, "ema_decay": 0.9} | {key: 0}
    with pytest.raises(ValueError, match=rf"method\.{key}"):
        ReSSL(backbone, 8, 4, **values)


def test_a_teacher_softer_than_the_student_is_refused() -> None:
    with pytest.raises(ValueError, match=r"method\.teacher_temperature=0\.2"):
        make(teacher_temperature=0.2)
