"""A method and data small enough to know every number of."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from ssl_zoo.evaluators.base import EvalContext
from ssl_zoo.method import Batch, Method


class FakeData:
    """Examples that a test wrote down. They come in the order `order` has, as text does."""

    def __init__(self, train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor], **facts: Any):
        self.parts = {"train": train, "test": test}
        num_classes = int(max(train[1].max(), test[1].max())) + 1 if len(test[1]) else 0
        self.facts = {
            "modality": "image",
            "num_classes": num_classes,
            "num_train": len(train[0]),
            "num_test": len(test[0]),
            "has_labels": True,
        } | facts
        self.passes = {"train": 0, "test": 0}
        self.order: Tensor | None = None

    def eval_batches(self, split: str, batch_size: int) -> Iterator[Batch]:
        self.passes[split] += 1
        x, y = self.parts[split]
        order = torch.arange(len(x)) if self.order is None else self.order
        for rows in order.split(batch_size):
            yield Batch([x[rows]], y[rows], rows)

    def views(self, images: Tensor, indices: Tensor, epochs: Tensor, seed: int) -> list[Tensor]:
        return [images, images]


def judge(data: Any, phase: Any = "final", encoder: nn.Module | None = None, **settings: Any) -> EvalContext:
    """`data` judged by a method whose encoder returns its input, unless another is given."""
    method = Method(encoder or nn.Identity())
    method.register_parameter("unused", nn.Parameter(torch.zeros(1)))  # tells the device
    return EvalContext(method, data, phase, **settings)


def blobs(count: int, width: int, classes: int, distance: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    """(count, width) points around one centre a class, and their labels. The centres are the same for all seeds."""
    centres = torch.randn(classes, width, generator=torch.Generator().manual_seed(99)) * distance
    rng = torch.Generator().manual_seed(seed)
    y = torch.arange(count) % classes
    return centres[y] + torch.randn(count, width, generator=rng), y
