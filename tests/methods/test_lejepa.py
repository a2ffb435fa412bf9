"""SIGReg against the integral, known values, identities and lightly; LeJEPA with many views."""

import cmath
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_zoo.method import Batch
from ssl_zoo.methods.lejepa import LeJEPA, epps_pulley, sigreg


class Pooled(nn.Module):
    """A backbone for views of any size."""

    num_features = 3

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=(2, 3))


def make(sigreg_weight: float = 0.05, num_directions: int = 32, num_knots: int = 17) -> LeJEPA:
    return LeJEPA(Pooled(), 16, 8, sigreg_weight, num_directions, num_knots, max_frequency=3.0)


def make_batch(num_local: int = 0) -> Batch:
    labels = torch.zeros(9, dtype=torch.long)
    views = [torch.randn(9, 3, 4, 4) for _ in range(2)] + [torch.randn(9, 3, 2, 2) for _ in range(num_local)]
    return Batch(views, labels, labels)


def naive(x: list[float], num_knots: int, limit: float) -> float:
    """Algorithm 1 for one direction, over both halves of the axis."""
    step, total = limit / (num_knots - 1), 0.0
    for k in range(1 - num_knots, num_knots):
        t = k * step
        phi = math.exp(-t * t / 2)
        ecf = sum(cmath.exp(1j * t * value) for value in x) / len(x)
        total += abs(ecf - phi) ** 2 * phi * step * (0.5 if abs(k) == num_knots - 1 else 1.0)
    return len(x) * total


def test_epps_pulley_equals_the_sum_over_both_halves() -> None:
    x = torch.randn(11, 3) * torch.tensor([0.3, 1.0, 4.0])
    statistic = epps_pulley(x, 9, 5.0)
    for column, value in zip(x.T.tolist(), statistic.tolist(), strict=True):
        assert value == pytest.approx(naive(column, 9, 5.0), rel=1e-4)


def test_the_statistic_of_a_collapsed_batch_is_known() -> None:
    """All samples at 0: N * integral of (1 - phi)^2 phi = N * sqrt(2 pi) * (1 - sqrt(2) + sqrt(1/3))."""
    known = 12 * math.sqrt(2 * math.pi) * (1 - math.sqrt(2) + math.sqrt(1 / 3))
    assert epps_pulley(torch.zeros(12, 1), 400, 8.0).item() == pytest.approx(known, rel=1e-4)


def test_gaussian_samples_have_the_expected_statistic_and_others_more() -> None:
    """Of N(0, 1) samples the statistic has mean integral of (1 - phi^2) phi = sqrt(2 pi) * (1 - sqrt(1/3)), any N."""
    x = torch.randn(100, 4000)  # the mean of so many columns has a standard error below 2 %
    expected = math.sqrt(2 * math.pi) * (1 - math.sqrt(1 / 3))
    assert epps_pulley(x, 17, 6.0).mean().item() == pytest.approx(expected, rel=0.1)
    for other in (x.sign(), 0.5 * x, x + 0.5):
        assert epps_pulley(other, 17, 6.0).mean() > 2 * expected


def test_the_statistic_is_blind_to_sign_and_order_and_directions_to_length() -> None:
    z, directions = torch.randn(10, 4), torch.randn(4, 6)
    loss = sigreg(z, directions, 17, 3.0)
    for same in (sigreg(-z, directions, 17, 3.0), sigreg(z.flip(0), directions * 7, 17, 3.0)):
        torch.testing.assert_close(same, loss)


def test_loss_equals_lightly_with_local_views() -> None:
    from lightly.loss.lejepa_loss import LeJEPALoss

    method, batch = make(0.3), make_batch(num_local=3)
    method.eval()  # so that BatchNorm does not see how the views are grouped
    z = torch.stack([method.projector(method.backbone(view)) for view in batch.views])
    theirs = LeJEPALoss(lambda_param=0.3, sigreg_num_vectors=32)
    torch.manual_seed(7)
    expected = theirs(local_proj=z[2:], global_proj=z[:2])
    torch.manual_seed(7)
    torch.testing.assert_close(method(batch, 0.0)["loss"], expected)


def test_two_views_are_a_quarter_of_their_squared_distance_from_their_mean() -> None:
    method, batch = make(), make_batch()
    method.eval()
    z1, z2 = (method.projector(method.backbone(view)) for view in batch.views)
    torch.testing.assert_close(method(batch, 0.0)["invariance"], F.mse_loss(z1, z2) / 4)


def test_directions_are_new_at_each_step_and_the_same_for_the_same_seed() -> None:
    method, batch = make(), make_batch()
    torch.manual_seed(0)
    first, second = method(batch, 0.0)["sigreg"], method(batch, 0.0)["sigreg"]
    torch.manual_seed(0)
    assert torch.equal(method(batch, 0.0)["sigreg"], first)
    assert not torch.equal(first, second)


def test_bad_values_are_refused() -> None:
    with pytest.raises(ValueError, match=r"method\.sigreg_weight"):
        make(sigreg_weight=1.0)
    with pytest.raises(ValueError, match=r"method\.num_knots"):
        make(num_knots=1)
    with pytest.raises(ValueError, match=r"method\.num_directions"):
        make(num_directions=0)
