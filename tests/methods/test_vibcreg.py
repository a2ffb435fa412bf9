"""IterNorm by what whitening means, VIbCReg's terms against loops, known values and identities."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ssl_zoo.method import Batch
from ssl_zoo.methods.vibcreg import IterNorm, VIbCReg, correlation_loss


def make(num_groups: int = 2, covariance_weight: float = 200.0) -> VIbCReg:
    backbone = nn.Sequential(nn.Flatten(), nn.Linear(12, 6))
    backbone.num_features = 6  # type: ignore[assignment]
    return VIbCReg(backbone, 16, 8, num_groups, 5, 25.0, 15.0, covariance_weight)


def mix(dim: int) -> torch.Tensor:
    """Makes independent features correlate, yet stay far from dependent."""
    return torch.eye(dim) + 0.5 * torch.ones(dim, dim).triu(1)


def make_batch(num_views: int = 2) -> Batch:
    labels = torch.zeros(9, dtype=torch.long)
    return Batch([torch.randn(9, 3, 2, 2) for _ in range(num_views)], labels, labels)


def test_iternorm_whitens_each_group() -> None:
    z = torch.randn(200, 8) @ mix(8) + 5
    out = IterNorm(8, num_groups=2, iterations=15)(z)
    torch.testing.assert_close(out.mean(dim=0), torch.zeros(8), atol=1e-4, rtol=0)
    covariance = out.T @ out / 200
    for group in (slice(0, 4), slice(4, 8)):
        torch.testing.assert_close(covariance[group, group], torch.eye(4), atol=5e-3, rtol=0)
    assert covariance[:4, 4:].abs().max() > 0.05  # groups do not know of each other


def test_iternorm_is_the_symmetric_inverse_root() -> None:
    z = torch.randn(50, 5) @ mix(5)
    centred = z - z.mean(dim=0)
    values, vectors = torch.linalg.eigh(centred.T @ centred / 50 + 1e-5 * torch.eye(5))
    expected = centred @ (vectors / values.sqrt()) @ vectors.T
    torch.testing.assert_close(IterNorm(5, 1, 20)(z), expected, atol=1e-3, rtol=1e-3)


def test_newtons_iterates_are_those_of_algorithm_1() -> None:
    z = torch.randn(50, 5) @ mix(5)
    centred = z - z.mean(dim=0)
    covariance = centred.T @ centred / 50 + 1e-5 * torch.eye(5)
    root = torch.eye(5)
    for _ in range(5):
        root = 1.5 * root - 0.5 * torch.linalg.matrix_power(root, 3) @ (covariance / covariance.trace())
    torch.testing.assert_close(IterNorm(5, 1, 5)(z), centred @ root / covariance.trace().sqrt(), atol=1e-4, rtol=1e-4)


def test_one_feature_a_group_is_a_batch_norm() -> None:
    z = torch.randn(20, 6) * 3 + 1
    torch.testing.assert_close(IterNorm(6, 6, 5)(z), nn.BatchNorm1d(6)(z), atol=1e-4, rtol=1e-4)


def test_iternorm_stays_finite_for_few_and_collapsed_rows() -> None:
    for z in (torch.randn(8, 64), torch.ones(8, 64)):
        z.requires_grad_()
        out = IterNorm(64, 2, 5)(z)
        (out * torch.randn(8, 64)).sum().backward()
        assert z.grad is not None
        assert out.isfinite().all()
        assert z.grad.isfinite().all()


def test_correlation_loss_equals_numpys_coefficients() -> None:
    z = torch.randn(7, 5) * torch.tensor([0.1, 1.0, 10.0, 3.0, 0.5])
    c = torch.corrcoef(z.T).tolist()
    expected = sum(c[i][j] ** 2 for i in range(5) for j in range(5) if i != j) / 25
    assert correlation_loss(z).item() == pytest.approx(expected, rel=1e-5)
    torch.testing.assert_close(correlation_loss(3 * z + 2), correlation_loss(z))


def test_known_values() -> None:
    z = torch.tensor([[1.0, 2.0], [-1.0, -2.0]])
    assert correlation_loss(z).item() == pytest.approx(0.5)  # two of four entries are 1


def test_loss_is_the_weighted_sum_of_its_terms() -> None:
    method, batch = make(), make_batch()
    scalars = method(batch, 0.0)
    z = [method.projector(method.backbone(view)).detach() for view in batch.views]
    total = 25 * float((z[0] - z[1]).square().mean())
    for x in z:
        std = [math.sqrt(float(x[:, i].var()) + 1e-4) for i in range(8)]
        total += 15 * sum(max(0.0, 1 - s) for s in std) / 8 + 200 * float(correlation_loss(x))
    assert scalars["loss"].item() == pytest.approx(total, rel=1e-5)


def test_correlations_relate_to_lightlys_covariances() -> None:
    """Of standardised features the covariance term is VICReg's times ((N-1)/N)^2 / D."""
    from lightly.loss.vicreg_loss import covariance_loss as theirs

    z = F.batch_norm(torch.randn(12, 5), None, None, training=True, eps=1e-12)
    torch.testing.assert_close(correlation_loss(z), theirs(z) * (11 / 12) ** 2 / 5)


def test_more_views_average_the_pairs() -> None:
    method, batch = make(), make_batch(3)
    a, b, c = batch.views
    pairs = [method(batch._replace(views=pair), 0.0)["loss"] for pair in ([a, b], [b, c], [c, a])]
    torch.testing.assert_close(method(batch, 0.0)["loss"], torch.stack(pairs).mean())


def test_bad_values_are_refused() -> None:
    with pytest.raises(ValueError, match=r"method\.num_groups=3"):
        make(num_groups=3)
    with pytest.raises(ValueError, match=r"method\.covariance_weight"):
        make(covariance_weight=0.0)
