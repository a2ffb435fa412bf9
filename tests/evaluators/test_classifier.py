"""The accuracy of a method's own classifier, against a loop, in evaluation mode."""

import torch
from torch import Tensor, nn

from ssl_zoo.evaluators.base import EvalContext, run_evaluators
from ssl_zoo.evaluators.classifier import ClassifierAccuracy, Classifies
from ssl_zoo.evaluators.proportion import Proportion
from ssl_zoo.method import Method
from ssl_zoo.methods.simclr import SimCLR
from ssl_zoo.methods.supervised import Supervised
from tests.evaluators.fakes import FakeData, blobs
from tests.training.test_checkpoints import backbone


class Sharp(Method):
    """Half of the examples are right."""

    def __init__(self) -> None:
        super().__init__(nn.Linear(4, 4))

    def classify(self, view: Tensor) -> Tensor:
        assert not self.training
        assert not torch.is_grad_enabled()
        right = torch.tensor([0, 1, 2, 0, 1, 2])
        return torch.eye(3)[torch.where(torch.arange(6) % 2 == 0, right, (right + 1) % 3)]


def test_share_of_right_answers() -> None:
    method = Sharp().train()
    data = FakeData(blobs(6, 4, 3, 1.0), blobs(6, 4, 3, 1.0))
    found = run_evaluators({"classifier": ClassifierAccuracy()}, EvalContext(method, data, "final"))
    assert found == {"classifier/top1": 0.5}
    value = found["classifier/top1"]
    assert isinstance(value, Proportion)
    assert value.n == 6
    assert method.training


def test_who_has_a_classifier() -> None:
    assert isinstance(Supervised(backbone(), 3, 0.0), Classifies)
    assert not isinstance(SimCLR(backbone(), 4, 2, 0.1), Classifies)
