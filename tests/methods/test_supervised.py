"""The supervised baseline against plain cross-entropy."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ssl_zoo.method import Batch
from ssl_zoo.methods.supervised import Supervised


def make(label_smoothing: float = 0.0) -> Supervised:
    backbone = nn.Flatten()
    backbone.num_features = 4  # type: ignore[assignment]
    return Supervised(backbone, num_classes=3, label_smoothing=label_smoothing)


def test_loss_and_accuracy_average_over_views() -> None:
    method = make()
    views, labels = [torch.randn(5, 4), torch.randn(5, 4)], torch.tensor([0, 1, 2, 1, 0])
    scalars = method(Batch(views, labels, labels), 0.0)
    logits = [method.head(view) for view in views]
    expected = (F.cross_entropy(logits[0], labels) + F.cross_entropy(logits[1], labels)) / 2
    torch.testing.assert_close(scalars["loss"], expected)
    hits = torch.stack([(x.argmax(dim=1) == labels).float().mean() for x in logits]).mean()
    torch.testing.assert_close(scalars["accuracy"], hits)


def test_label_smoothing_mixes_in_the_uniform_distribution() -> None:
    method, labels = make(0.3), torch.tensor([0, 1, 2])
    views = [torch.randn(3, 4)]
    log_p = method.head(views[0]).log_softmax(dim=1)
    expected = -(0.7 * log_p[torch.arange(3), labels] + 0.3 * log_p.mean(dim=1)).mean()
    torch.testing.assert_close(method(Batch(views, labels, labels), 0.0)["loss"], expected)


def test_bad_values_are_refused() -> None:
    with pytest.raises(ValueError, match=r"method\.label_smoothing=1"):
        make(1.0)
    with pytest.raises(ValueError, match="at least 2 classes"):
        Supervised(make().backbone, num_classes=1, label_smoothing=0.0)
