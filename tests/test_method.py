"""The protocol's own promises."""

import copy

import pytest
import torch
import torch.nn.functional as F
from timm.layers import DropPath
from torch import nn

from ssl_zoo.conformance import subjects
from ssl_zoo.distributed import gather_batch_norm
from ssl_zoo.evaluators.base import frozen
from ssl_zoo.functional import ema_copy
from ssl_zoo.method import Batch, Method


def test_a_method_keeps_its_backbone_as_encoder_and_must_say_its_loss() -> None:
    backbone = nn.Linear(2, 2)
    method = Method(backbone)
    assert method.encoder is backbone
    assert (method.min_views, method.uses_labels) == (1, False)
    labels = torch.zeros(1, dtype=torch.long)
    with pytest.raises(NotImplementedError):
        method(Batch([torch.zeros(1, 2)], labels, labels), 0.0)
    method.after_step(0.5)


def noisy_method() -> Method:
    """A method with a teacher; drop path and dropout in its backbone are as strong as they can be."""
    layers = [nn.Linear(4, 4), nn.BatchNorm1d(4), DropPath(0.9), nn.Dropout(0.9)]
    method = Method(nn.Sequential(*layers))
    method.teacher = ema_copy(method.backbone)
    return method


@pytest.mark.parametrize("trained_before", [False, True])
@pytest.mark.parametrize("gathered", [False, True])
def test_a_teacher_has_no_dropout_and_normalises_by_the_batch_in_training(trained_before: bool, gathered: bool) -> None:
    method, x = noisy_method(), torch.randn(64, 4)
    if gathered:
        gather_batch_norm(method)
    if trained_before:
        method.eval().train()
    assert method.training
    assert method.backbone[3].training
    linear, norm, *_ = method.teacher
    out = method.teacher(x)
    torch.testing.assert_close(out, F.batch_norm(linear(x), None, None, training=True))
    assert norm.num_batches_tracked == 1
    method.eval()
    torch.testing.assert_close(method.teacher(x), F.batch_norm(linear(x), norm.running_mean, norm.running_var))


def test_evaluating_a_teacher_leaves_its_mode() -> None:
    """I-JEPA's encoder is a teacher: evaluators put it into evaluation mode and back."""
    method = noisy_method()
    modes = [part.training for part in method.teacher.modules()]
    with frozen(method.teacher):
        assert not any(part.training for part in method.teacher.modules())
    assert [part.training for part in method.teacher.modules()] == modes
    assert not any(part.training for part in copy.deepcopy(method).train().teacher[2:])


@pytest.mark.parametrize("name", subjects.method_names())
def test_the_teachers_of_every_method(name: str) -> None:
    """Each copy without gradient that moves is an EMA network; none of its dropout layers is at work."""
    for subject in subjects.subjects_of(name):
        method = subject.build(0).train()
        copies = [p for p in method.parameters() if not p.requires_grad]
        teachers = [part for part in method.modules() if getattr(part, "is_ema", False)]
        found = {id(p) for teacher in teachers for p in teacher.parameters()}
        assert {id(p) for p in copies} <= found
        for teacher in teachers:
            assert not [part for part in teacher.modules() if part.training and not hasattr(part, "running_var")]
