"""NT-Xent against a loop, a known value, identities and lightly."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ssl_zoo.method import Batch
from ssl_zoo.methods.simclr import SimCLR, nt_xent


def naive(z1: torch.Tensor, z2: torch.Tensor, temperature: float) -> float:
    z = torch.cat([z1, z2])
    count, total = len(z), 0.0
    for i in range(count):
        j = (i + len(z1)) % count
        sims = [math.exp(float(F.cosine_similarity(z[i], z[k], dim=0)) / temperature) for k in range(count)]
        total -= math.log(sims[j] / (sum(sims) - sims[i]))
    return total / count


@pytest.mark.parametrize("temperature", [0.05, 0.5, 2.0])
def test_nt_xent_equals_the_loop_of_algorithm_1(temperature: float) -> None:
    z1, z2 = torch.randn(6, 8), torch.randn(6, 8)
    assert nt_xent(z1, z2, temperature).item() == pytest.approx(naive(z1, z2, temperature), rel=1e-5)


def test_nt_xent_equals_lightly() -> None:
    from lightly.loss import NTXentLoss

    z1, z2 = torch.randn(16, 32), torch.randn(16, 32)
    torch.testing.assert_close(nt_xent(z1, z2, 0.2), NTXentLoss(temperature=0.2)(z1, z2), atol=1e-5, rtol=1e-5)


def test_nt_xent_of_collapsed_projections_is_log_of_the_candidates() -> None:
    z = torch.ones(10, 4)
    assert nt_xent(z, z, 0.2).item() == pytest.approx(math.log(19), abs=1e-5)  # 2B - 1 candidates


def test_nt_xent_is_symmetric_and_blind_to_scale_and_order() -> None:
    z1, z2 = torch.randn(9, 5), torch.randn(9, 5)
    loss = nt_xent(z1, z2, 0.3)
    order = torch.randperm(9)
    for other in (nt_xent(z2, z1, 0.3), nt_xent(3 * z1, 7 * z2, 0.3), nt_xent(z1[order], z2[order], 0.3)):
        torch.testing.assert_close(other, loss)


def test_nt_xent_in_bf16_stays_close_and_zero_vectors_stay_finite() -> None:
    z1, z2 = torch.randn(16, 8), torch.randn(16, 8)
    torch.testing.assert_close(nt_xent(z1.bfloat16(), z2.bfloat16(), 0.2), nt_xent(z1, z2, 0.2), atol=2e-2, rtol=0)
    zero = torch.zeros(4, 8, requires_grad=True)
    nt_xent(zero, zero, 0.2).backward()
    assert zero.grad is not None
    assert zero.grad.isfinite().all()


def test_more_views_average_the_pairs() -> None:
    backbone = nn.Sequential(nn.Flatten(), nn.Linear(12, 6))
    backbone.num_features = 6  # type: ignore[assignment]
    method = SimCLR(backbone, hidden_dim=8, out_dim=4, temperature=0.2).eval()
    views = [torch.randn(5, 3, 2, 2) for _ in range(3)]
    z = [method.projector(backbone(view)) for view in views]
    expected = (nt_xent(z[0], z[1], 0.2) + nt_xent(z[0], z[2], 0.2) + nt_xent(z[1], z[2], 0.2)) / 3
    labels = torch.zeros(5, dtype=torch.long)
    torch.testing.assert_close(method(Batch(views, labels, labels), 0.0)["loss"], expected)


@pytest.mark.parametrize("temperature", [0, -0.1, math.inf])
def test_bad_temperature_is_refused(temperature: float) -> None:
    backbone = nn.Linear(2, 2)
    backbone.num_features = 2  # type: ignore[assignment]
    with pytest.raises(ValueError, match=r"method\.temperature"):
        SimCLR(backbone, 8, 4, temperature)
