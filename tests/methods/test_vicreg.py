"""VICReg's three terms against loops, known values, identities and lightly."""

import math

import pytest
import torch
from torch import Tensor, nn

from ssl_zoo.functional import variance_loss
from ssl_zoo.method import Batch
from ssl_zoo.methods.vicreg import VICReg, covariance_loss


def make(**changed: float) -> VICReg:
    backbone = nn.Sequential(nn.Flatten(), nn.Linear(12, 6))
    backbone.num_features = 6  # type: ignore[assignment]
    weights = {"invariance_weight": 25.0, "variance_weight": 15.0, "covariance_weight": 2.0} | changed
    return VICReg(backbone, hidden_dim=16, out_dim=8, **weights)


def make_batch(num_views: int = 2) -> Batch:
    labels = torch.zeros(9, dtype=torch.long)
    return Batch([torch.randn(9, 3, 2, 2) for _ in range(num_views)], labels, labels)


def covariances(z: Tensor) -> list[list[float]]:
    n, d = z.shape
    means = [sum(float(z[b, i]) for b in range(n)) / n for i in range(d)]
    return [
        [sum((float(z[b, i]) - means[i]) * (float(z[b, j]) - means[j]) for b in range(n)) / (n - 1) for j in range(d)]
        for i in range(d)
    ]


def test_variance_and_covariance_equal_the_loops_of_eq_1_to_4() -> None:
    z = 0.9 * torch.randn(7, 5)
    c = covariances(z)
    hinge = sum(max(0.0, 1 - math.sqrt(c[i][i] + 1e-4)) for i in range(5)) / 5
    assert variance_loss(z).item() == pytest.approx(hinge, abs=1e-6)
    covariance = sum(c[i][j] ** 2 for i in range(5) for j in range(5) if i != j) / 5
    assert covariance_loss(z).item() == pytest.approx(covariance, rel=1e-5)


def test_loss_equals_lightly() -> None:
    from lightly.loss import VICRegLoss

    method, batch = make(), make_batch()
    z1, z2 = (method.projector(method.backbone(view)) for view in batch.views)
    theirs = VICRegLoss(lambda_param=25.0, mu_param=15.0, nu_param=2.0)(z1, z2)
    torch.testing.assert_close(method(batch, 0.0)["loss"], theirs)


def test_known_values() -> None:
    z = torch.tensor([[1.0, 1.0], [-1.0, -1.0]])  # variances and covariance 2
    assert variance_loss(z).item() == 0
    assert covariance_loss(z).item() == pytest.approx(4.0)  # (2^2 + 2^2) / 2
    collapsed = torch.ones(6, 4)
    assert variance_loss(collapsed).item() == pytest.approx(0.99)  # 1 - sqrt(1e-4)
    assert covariance_loss(collapsed).item() == 0


def test_a_collapsed_batch_has_a_finite_gradient() -> None:
    z = torch.ones(6, 4, requires_grad=True)
    (variance_loss(z) + covariance_loss(z)).backward()
    assert z.grad is not None
    assert z.grad.isfinite().all()


def test_loss_is_blind_to_the_order_of_views_and_examples() -> None:
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


@pytest.mark.parametrize("key", ["invariance_weight", "variance_weight", "covariance_weight"])
def test_bad_weights_are_refused(key: str) -> None:
    with pytest.raises(ValueError, match=rf"method\.{key}"):
        make(**{key: 0.0})
