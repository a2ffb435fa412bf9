"""The check finds masks that follow the padded length, means over no token, mask tokens of zeros, and no others."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_zoo.conformance import checks, subjects
from ssl_zoo.conformance.lengths import lengths
from ssl_zoo.distributed import rand_rows
from ssl_zoo.method import Batch
from ssl_zoo.methods.data2vec import Data2Vec
from ssl_zoo.methods.simclr import SimCLR
from ssl_zoo.nn import masks


class Padded(masks.RandomMask):
    """Masks a share of the padded length."""

    def __call__(self, eligible: Tensor, grid: tuple[int, int]) -> Tensor:
        scores = rand_rows(*eligible.shape, device=eligible.device).masked_fill(~eligible, -1)
        columns = scores.topk(round(self.mask_ratio * eligible.shape[1]), dim=1).indices
        return torch.zeros_like(eligible).scatter(1, columns, True) & eligible


class LongRowsOnly(masks.RandomMask):
    """Masks nothing in rows of three tokens."""

    def __call__(self, eligible: Tensor, grid: tuple[int, int]) -> Tensor:
        return super().__call__(eligible, grid) & (eligible.sum(dim=1, keepdim=True) > 3)


class Masked(Data2Vec):
    def __init__(self, mask: Callable[[float], Any] = masks.RandomMask, zeros: bool = False, **arguments: Any):
        super().__init__(mask=mask(0.3), **arguments)
        if zeros:
            torch.nn.init.zeros_(self.mask_token)


class FollowsPadding(Masked):
    def __init__(self, **arguments: Any):
        super().__init__(Padded, **arguments)


class SparesShortRows(Masked):
    def __init__(self, **arguments: Any):
        super().__init__(LongRowsOnly, **arguments)


class MeanOfNothing(Masked):
    """Its mean is over the tokens beyond the third of each row, of which a batch may hold none."""

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        long = (batch.views[0] != subjects.PAD_ID).sum(dim=1) > 3
        scalars = super().forward(batch, progress)
        return {"loss": scalars["loss"] * long.sum() / long.sum()}


class Steep(SimCLR):
    """Divides by the distance of each example from their mean."""

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        x = self.backbone(batch.views[0])
        directions = F.normalize(x - x.mean(dim=0).detach(), dim=1)
        weights = torch.linspace(-1, 1, x.numel()).view_as(x)
        return {"loss": super().forward(batch, progress)["loss"] + (weights * directions).mean()}


DATA2VEC = {"num_layers": 2, "num_head_layers": 1, "beta": 2.0, "ema_decay": 0.9, "final_decay": 0.9}
SIMCLR = {"hidden_dim": 16, "out_dim": 8, "temperature": 0.2}


def failed(name: str, arguments: dict[str, Any], kind: str = "text") -> dict[str, str]:
    """What is wrong with which rows."""
    (subject,) = subjects.subjects_of_class(f"{__name__}.{name}", arguments, (kind,))
    return {finding.check: finding.failure for finding in lengths(subject) if finding.failure}


def test_sound_methods_pass() -> None:
    assert not failed("Masked", DATA2VEC)
    assert not failed("SimCLR", SIMCLR)
    assert not failed("SimCLR", SIMCLR, "conv")


@pytest.mark.parametrize("name", ["FollowsPadding", "SparesShortRows"])
def test_rows_that_do_not_count_are_found(name: str) -> None:
    found = failed(name, DATA2VEC)
    assert found.keys() == {"ragged rows", "short rows"}
    assert "have no gradient" in found["ragged rows"]


def test_a_loss_that_is_not_finite_is_found() -> None:
    assert failed("MeanOfNothing", DATA2VEC).keys() == {"short rows"}


@pytest.mark.parametrize("kind", ["text", "conv"])
def test_a_steep_loss_of_equal_rows_is_found(kind: str) -> None:
    assert failed("Steep", SIMCLR, kind).keys() == {"equal rows"}


def test_the_table_holds_norms() -> None:
    (subject,) = subjects.subjects_of_class("ssl_zoo.methods.simclr.SimCLR", SIMCLR, ("text",))
    findings = lengths(subject)
    assert [finding.check for finding in findings] == ["equal rows", "ragged rows", "short rows"]
    assert all(finding.seen and finding.tolerance and finding.seen <= finding.tolerance for finding in findings)
    assert not checks.failures(findings)
