"""Barlow Twins' loss against a loop, known values, identities and lightly."""

import math

import pytest
import torch
from torch import Tensor, nn

from ssl_zoo.method import Batch
from ssl_zoo.methods.barlow_twins import BarlowTwins, cross_correlation, standardize


def make(redundancy_weight: float = 0.005, loss_scale: float = 1.0) -> BarlowTwins:
    backbone = nn.Sequential(nn.Flatten(), nn.Linear(12, 6))
    backbone.num_features = 6  # type: ignore[assignment]
    return BarlowTwins(backbone, 16, 8, redundancy_weight, loss_scale)


def make_batch(num_views: int = 2) -> Batch:
    labels = torch.zeros(9, dtype=torch.long)
    return Batch([torch.randn(9, 3, 2, 2) for _ in range(num_views)], labels, labels)


def naive(z1: Tensor, z2: Tensor, redundancy_weight: float) -> float:
    """Eq. 1 and 2, where features are centred over the batch first."""
    (n, d), total = z1.shape, 0.0
    z1, z2 = z1 - z1.mean(dim=0), z2 - z2.mean(dim=0)
    for i in range(d):
        for j in range(d):
            dot = sum(float(z1[b, i]) * float(z2[b, j]) for b in range(n))
            norms = sum(float(z1[b, i]) ** 2 for b in range(n)) * sum(float(z2[b, j]) ** 2 for b in range(n))
            c = dot / math.sqrt(norms)
            total += (1 - c) ** 2 if i == j else redundancy_weight * c**2
    return total


def test_loss_equals_the_loop_of_eq_1() -> None:
    method, batch = make(loss_scale=0.1), make_batch()
    with torch.no_grad():
        z1, z2 = (method.projector(method.backbone(view)) for view in batch.views)
    assert method(batch, 0.0)["loss"].item() == pytest.approx(0.1 * naive(z1, z2, 0.005), rel=2e-3)  # BatchNorm's eps


def test_loss_equals_lightly_times_the_scale() -> None:
    from lightly.loss import BarlowTwinsLoss

    method, batch = make(loss_scale=0.1), make_batch()
    z1, z2 = (method.projector(method.backbone(view)) for view in batch.views)
    theirs = BarlowTwinsLoss(lambda_param=0.005)(z1, z2)
    torch.testing.assert_close(method(batch, 0.0)["loss"], 0.1 * theirs)


def test_known_correlations() -> None:
    z = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    same, other = standardize(z), standardize(3 - 7 * z.flip(1))
    torch.testing.assert_close(cross_correlation(same, same), torch.eye(2), atol=1e-4, rtol=0)
    torch.testing.assert_close(cross_correlation(same, other), -torch.eye(2).flip(1), atol=1e-4, rtol=0)


def test_collapsed_projections_cost_one_for_each_feature() -> None:
    method, batch = make(), make_batch()
    nn.init.zeros_(method.projector[-1].weight)  # type: ignore[arg-type]
    scalars = method(batch, 0.0)
    assert scalars["loss"].item() == pytest.approx(8.0)
    scalars["loss"].backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in method.parameters())


def test_loss_is_symmetric_and_blind_to_the_order_of_examples() -> None:
    method, batch = make(), make_batch()
    order = torch.randperm(9)
    loss = method(batch, 0.0)["loss"]
    for views in (batch.views[::-1], [view[order] for view in batch.views]):
        torch.testing.assert_close(method(batch._replace(views=views), 0.0)["loss"], loss)


def test_more_views_average_the_pairs() -> None:
    method, batch = make(), make_batch(3)
    a, b, c = batch.views
    pairs = [method(batch._replace(views=pair), 0.0)["loss"] for pair in ([a, b], [a, c], [b, c])]
    torch.testing.assert_close(method(batch, 0.0)["loss"], torch.stack(pairs).mean())


def test_bad_weights_are_refused() -> None:
    with pytest.raises(ValueError, match=r"method\.redundancy_weight"):
        make(redundancy_weight=0.0)
    with pytest.raises(ValueError, match=r"method\.loss_scale"):
        make(loss_scale=-1.0)
