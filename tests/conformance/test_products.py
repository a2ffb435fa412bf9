"""The check finds products and losses in bfloat16, and lets those of layers pass."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_zoo.conformance import subjects
from ssl_zoo.conformance.checks import failures
from ssl_zoo.conformance.products import product_precision
from ssl_zoo.functional import similarities
from ssl_zoo.method import Batch
from ssl_zoo.methods.simclr import SimCLR

ARGUMENTS = {"hidden_dim": 8, "out_dim": 4, "temperature": 0.2}


class Products(SimCLR):
    """Its loss is a product of the two views; `multiply` is how."""

    def multiply(self, x: Tensor, y: Tensor) -> Tensor:
        return similarities(x, y)

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        x, y = (self.projector(self.backbone(view)).float() for view in batch.views[:2])
        return {"loss": self.multiply(x, y).float().mean()}


class ByOperator(Products):
    def multiply(self, x: Tensor, y: Tensor) -> Tensor:
        return x @ y.T


class ByEinsum(Products):
    def multiply(self, x: Tensor, y: Tensor) -> Tensor:
        return torch.einsum("id,jd->ij", x, y)


class ByBatch(Products):
    def multiply(self, x: Tensor, y: Tensor) -> Tensor:
        return torch.bmm(x[None], y.T[None])


class ByLinear(Products):
    def multiply(self, x: Tensor, y: Tensor) -> Tensor:
        return F.linear(x, y)


class TiedLayer(Products):
    """A linear layer that the method computes itself, with a parameter of its own."""

    def __init__(self, **arguments: Any):
        super().__init__(**arguments)
        self.tied = nn.Parameter(torch.randn(3, 4))

    def multiply(self, x: Tensor, y: Tensor) -> Tensor:
        return F.linear(x, self.tied)


class HalfLoss(SimCLR):
    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        return {"loss": super().forward(batch, progress)["loss"].bfloat16()}


def check(name: str) -> str:
    (subject,) = subjects.subjects_of_class(f"{__name__}.{name}", ARGUMENTS, ("conv",))
    return failures(product_precision(subject))


@pytest.mark.parametrize("name", ["ByOperator", "ByEinsum", "ByBatch", "ByLinear"])
def test_a_product_in_bfloat16_is_found(name: str) -> None:
    assert "is computed in bfloat16" in check(name)


def test_a_loss_in_bfloat16_is_found() -> None:
    assert "loss is torch.bfloat16" in check("HalfLoss")


@pytest.mark.parametrize("name", ["Products", "TiedLayer"])
def test_layers_and_float32_products_pass(name: str) -> None:
    assert check(name) == ""
