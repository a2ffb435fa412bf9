"""Accuracy of the classifier that a supervised method trains together with its encoder."""

from typing import Protocol, runtime_checkable

from torch import Tensor

from ssl_zoo.evaluators.base import EvalContext, frozen
from ssl_zoo.evaluators.proportion import Proportion


@runtime_checkable
class Classifies(Protocol):
    """A method with a classifier of its own."""

    def classify(self, view: Tensor) -> Tensor:
        """Maps a view (B, ...) to logits (B, C), in the order of the data's classes."""


class ClassifierAccuracy:
    """Reports `classifier/top1`, the share of test examples that the method's own classifier gives their label.

    A run of a method with a classifier adds it to its evaluators.
    """

    needs_labels = True
    needs_method = Classifies

    def __call__(self, context: EvalContext) -> dict[str, float]:
        """Accuracy on the test split."""
        method = context.method
        assert isinstance(method, Classifies)
        with frozen(context.method), context.precision():
            logits = context.collect("test", method.classify)
        return {"classifier/top1": Proportion.of(logits.x.argmax(dim=1) == logits.y)}
