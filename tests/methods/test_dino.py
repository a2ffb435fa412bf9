"""DINO's loss against a loop and lightly; its centre, temperatures, freezing and teacher."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_zoo.method import Batch
from ssl_zoo.methods.dino import DINO
from ssl_zoo.schedules import cosine_schedule


def make(**changes: Any) -> DINO:
    backbone = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, 6))
    backbone.num_features = 6  # type: ignore[assignment]
    numbers = {"temperature": 0.1, "freeze_until": 0.1, "center_decay": 0.9, "ema_decay": 0.8}
    numbers |= {"teacher_temperature": 0.07, "teacher_temperature_start": 0.04, "teacher_temperature_warmup": 0.5}
    return DINO(backbone, 16, 8, 10, **(numbers | changes))


def make_batch(local: int = 0) -> Batch:
    labels = torch.zeros(7, dtype=torch.long)
    return Batch([torch.randn(7, 3, size, size) for size in [4, 4] + [2] * local], labels, labels)


def outputs(method: DINO, batch: Batch) -> tuple[list[Tensor], list[Tensor]]:
    """Scores of the student for all views and of the teacher for the two global ones."""
    student = [method.projector(method.backbone(view)) for view in batch.views]
    return student, [method.teacher(view) for view in batch.views[:2]]


@pytest.mark.parametrize("local", [0, 3])
def test_loss_equals_the_loop_of_eq_3(local: int) -> None:
    method, batch = make(), make_batch(local)
    method.center.copy_(torch.randn(10) / 10)
    student, teacher = outputs(method, batch)
    center, total, count = method.center.clone(), 0.0, 0
    for i, t in enumerate(teacher):
        for j, s in enumerate(student):
            if i != j:
                for row_t, row_s in zip(t, s, strict=True):
                    p = torch.exp((row_t - center) / 0.055)  # half of the way from 0.04 to 0.07
                    q = torch.exp(row_s / 0.1)
                    total -= float((p / p.sum() * torch.log(q / q.sum())).sum())
                    count += 1
    assert method(batch, 0.25)["loss"].item() == pytest.approx(total / count, rel=1e-4)


@pytest.mark.parametrize("local", [0, 2])
def test_loss_and_centre_equal_lightly(local: int) -> None:
    from lightly.loss import DINOLoss

    method = make()
    theirs = DINOLoss(10, center_momentum=0.9)
    for _ in range(2):  # the second time with a centre
        batch = make_batch(local)
        student, teacher = outputs(method, batch)
        loss = method(batch, 0.8)["loss"]
        torch.testing.assert_close(loss, theirs(teacher, student, teacher_temp=0.07))
        torch.testing.assert_close(method.center, theirs.center.flatten())


def test_the_centre_moves_in_training_only() -> None:
    method, batch = make(), make_batch()
    method.eval()(batch, 0.5)
    assert not method.center.any()
    _, teacher = outputs(method, batch)
    method.train()(batch, 0.5)
    torch.testing.assert_close(method.center, 0.1 * torch.cat(teacher).mean(0))


def test_equal_scores_give_log_k() -> None:
    method = make()
    with torch.no_grad():
        method.projector.prototypes.weight.fill_(1)
        method.teacher[1].prototypes.weight.fill_(1)  # type: ignore[index]
    assert method(make_batch(), 0.5)["loss"].item() == pytest.approx(math.log(10), abs=1e-5)


def test_a_colder_teacher_is_surer_and_the_warm_up_is_linear() -> None:
    method, batch = make(), make_batch()
    method.eval()
    _, teacher = outputs(method, batch)
    for progress, temperature in ((0.0, 0.04), (0.25, 0.055), (0.5, 0.07), (0.99, 0.07)):
        expected = F.softmax(teacher[0] / temperature, dim=1)
        torch.testing.assert_close(method.targets(batch.views, progress)[0], expected)


def test_the_last_layer_is_frozen_early_and_the_teacher_takes_no_gradient() -> None:
    method, batch = make(), make_batch()
    with torch.no_grad():
        # so that the student is not the teacher
        method.projector.mlp[0].weight.add_(0.1)  # type: ignore[operator]
    for progress, learns in ((0.05, False), (0.1, True)):
        method.zero_grad()
        method(batch, progress)["loss"].backward()
        grad = method.projector.prototypes.weight.grad
        assert grad is not None
        assert bool(grad.any()) == learns
        assert all(p.grad is not None for p in method.backbone.parameters())
        assert all(p.grad is None for p in method.teacher.parameters())


@pytest.mark.parametrize("progress", [0.0, 0.6])
def test_the_teacher_moves_by_the_scheduled_decay(progress: float) -> None:
    method = make()
    before = method.teacher[0][2].weight.clone()  # type: ignore[index]
    with torch.no_grad():
        method.backbone[2].weight.add_(1)
    method.after_step(progress)
    now = method.teacher[0][2].weight  # type: ignore[index]
    torch.testing.assert_close(now, before + 1 - cosine_schedule(0.8, 1.0, progress))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("ema_decay", 1.0),
        ("center_decay", 0.0),
        ("temperature", 0.0),
        ("freeze_until", 2.0),
        ("teacher_temperature", [0.04, 0.07, 0.3]),
        ("teacher_temperature_start", 0.0),
        ("teacher_temperature_warmup", 30),
    ],
)
def test_bad_values_are_refused(key: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"method\.{key}"):
        make(**{key: value})
