"""The protocol's own promises."""

import pytest
import torch
from torch import nn

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
