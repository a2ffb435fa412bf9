"""MMCR's nuclear norms against NumPy-like loops, known values, bounds and lightly."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_zoo.method import Batch
from ssl_zoo.methods.mmcr import MMCR, nuclear_norm


def make(local_weight: float = 0.01) -> MMCR:
    backbone = nn.Sequential(nn.Flatten(), nn.Linear(12, 6))
    backbone.num_features = 6  # type: ignore[assignment]
    return MMCR(backbone, 16, 5, local_weight).eval()


def make_batch(num_views: int = 2, size: int = 7) -> Batch:
    labels = torch.zeros(size, dtype=torch.long)
    return Batch([torch.randn(size, 3, 2, 2) for _ in range(num_views)], labels, labels)


def project(method: MMCR, batch: Batch) -> Tensor:
    z = torch.stack([method.projector(method.backbone(view)) for view in batch.views], dim=1)
    return F.normalize(z, dim=2)  # (B, V, D)


def naive(matrix: Tensor) -> float:
    """Sum of the roots of the eigenvalues of X^T X."""
    return sum(math.sqrt(max(0.0, float(v))) for v in torch.linalg.eigvalsh(matrix.T.double() @ matrix.double()))


@pytest.mark.parametrize("num_views", [2, 4])
def test_loss_equals_the_sum_over_examples(num_views: int) -> None:
    method, batch = make(), make_batch(num_views)
    z = project(method, batch).detach()
    local = sum(naive(example) for example in z) / 7
    expected = 0.01 * local - naive(z.mean(dim=1))
    assert method(batch, 0.0)["loss"].item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("local_weight", [0.0, 0.005])
def test_loss_equals_lightly(local_weight: float) -> None:
    """lightly takes the unit vectors of two networks; ours are half of the views each."""
    from lightly.loss import MMCRLoss

    method, batch = make(local_weight), make_batch(4)
    z = project(method, batch)
    torch.testing.assert_close(method(batch, 0.0)["loss"], MMCRLoss(lmda=local_weight)(z[:, :2], z[:, 2:]))


def test_known_values() -> None:
    assert nuclear_norm(torch.diag(torch.tensor([3.0, -4.0, 0.0]))).item() == pytest.approx(7.0)
    same = torch.ones(4, 3) / math.sqrt(3)  # rank 1: the norm is that of Frobenius, sqrt(4)
    assert nuclear_norm(same).item() == pytest.approx(2.0)


def test_centroids_are_bounded_and_the_bound_is_met() -> None:
    """||C||_* <= sqrt(N min(N, D)), met by unit vectors that share out the axes evenly."""
    assert nuclear_norm(torch.eye(5).repeat(4, 1)).item() == pytest.approx(math.sqrt(20 * 5))
    random = F.normalize(torch.randn(20, 5), dim=1)
    assert nuclear_norm(random).item() < math.sqrt(20 * 5)


def test_a_collapse_is_worse_and_views_that_differ_are_worse() -> None:
    method, batch = make(0.0), make_batch()
    same = batch._replace(views=[batch.views[0]] * 2)
    opposed = project(method, same) * torch.tensor([1.0, -0.5]).view(1, 2, 1)
    assert nuclear_norm(opposed.mean(dim=1)) < -method(same, 0.0)["loss"]
    nn.init.zeros_(method.projector[-1].weight)  # type: ignore[arg-type]
    assert method(batch, 0.0)["loss"].item() == pytest.approx(-math.sqrt(7), rel=1e-5)


def test_loss_is_blind_to_the_order_of_views_and_examples_and_to_rotation() -> None:
    method, batch = make(), make_batch(3)
    order = torch.randperm(7)
    loss = method(batch, 0.0)["loss"]
    for views in (batch.views[::-1], [view[order] for view in batch.views]):
        torch.testing.assert_close(method(batch._replace(views=views), 0.0)["loss"], loss)
    rotation = torch.linalg.qr(torch.randn(5, 5)).Q
    z = project(method, batch)
    torch.testing.assert_close(nuclear_norm(z @ rotation), nuclear_norm(z))


def test_degenerate_centroids_have_a_finite_gradient() -> None:
    for x in (torch.zeros(6, 4), torch.ones(6, 4), torch.eye(4).repeat(2, 1)):
        x.requires_grad_()
        nuclear_norm(x).backward()
        assert x.grad is not None
        assert x.grad.isfinite().all()


@pytest.mark.parametrize("weight", [-0.1, math.inf, math.nan])
def test_bad_weights_are_refused(weight: float) -> None:
    with pytest.raises(ValueError, match=r"method\.local_weight"):
        make(weight)
