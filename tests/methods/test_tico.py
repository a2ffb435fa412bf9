"""TiCo's loss against a loop and lightly, its memory of second moments and its target."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_zoo.method import Batch
from ssl_zoo.methods.tico import TiCo
from ssl_zoo.schedules import cosine_schedule


def make(contrast_weight: float = 8.0, covariance_decay: float = 0.9, ema_decay: float = 0.95) -> TiCo:
    backbone = nn.Sequential(nn.Flatten(), nn.Linear(12, 6))
    backbone.num_features = 6  # type: ignore[assignment]
    return TiCo(backbone, 16, 5, contrast_weight, covariance_decay, ema_decay)


def make_batch(num_views: int = 2) -> Batch:
    labels = torch.zeros(7, dtype=torch.long)
    return Batch([torch.randn(7, 3, 2, 2) for _ in range(num_views)], labels, labels)


def online(method: TiCo, view: Tensor) -> Tensor:
    return F.normalize(method.projector(method.backbone(view)), dim=1)


def test_loss_equals_the_loop_of_algorithm_1_in_both_directions() -> None:
    method, batch = make(), make_batch()
    method.covariance = torch.diag(torch.tensor([0.5, 0.2, 0.1, 0.1, 0.1]))
    old = method.covariance.clone()
    with torch.no_grad():
        z = [online(method, view) for view in batch.views]
        t = [F.normalize(method.target(view), dim=1) for view in batch.views]
    moments = torch.zeros(5, 5)
    for x in (row for view in z for row in view):
        moments += torch.outer(x, x) / 14
    c, total = 0.9 * old + 0.1 * moments, 0.0
    for mine, other in ((0, 1), (1, 0)):
        for x, y in zip(z[mine], t[other], strict=True):
            total += (1 - float(x @ y) + 8 * float(x @ c @ x)) / 14
    assert method(batch, 0.0)["loss"].item() == pytest.approx(total, rel=1e-5)
    torch.testing.assert_close(method.covariance, c)


def test_loss_equals_lightly_in_one_direction() -> None:
    """lightly takes one direction; of one view, twice, both are the same: in loss and gradient, for three steps."""
    from lightly.loss import TiCoLoss

    method, theirs = make(), TiCoLoss(beta=0.9, rho=8.0)
    for _ in range(3):
        view = make_batch().views[0]
        batch = make_batch()._replace(views=[view, view])
        method.zero_grad()
        loss = method(batch, 0.0)["loss"]
        loss.backward()
        mine = method.projector[0].weight.grad.clone()  # type: ignore[union-attr, operator]
        method.zero_grad()
        expected = theirs(method.projector(method.backbone(view)), method.target(view))
        expected.backward()
        torch.testing.assert_close(loss, expected)
        torch.testing.assert_close(mine, method.projector[0].weight.grad, atol=1e-6, rtol=1e-4)


def test_known_value_of_a_collapse() -> None:
    """All embeddings alike: cos is 1, and z^T C z is 1 - 0.9^k after k steps from an empty memory."""
    method, batch = make(), make_batch()
    for module in (method.projector, method.target[1]):  # type: ignore[index]
        nn.init.zeros_(module[-1].weight)  # type: ignore[arg-type]
    for k in (1, 2, 3):
        assert method(batch, 0.0)["loss"].item() == pytest.approx(8 * (1 - 0.9**k), rel=1e-5)


def test_the_contrast_of_uniform_directions_is_one_over_d() -> None:
    method = make(covariance_decay=0.5)
    z = torch.eye(5).repeat(4, 1)
    torch.testing.assert_close(method.updated_covariance([z]), 0.5 * torch.eye(5) / 5)


def test_memory_moves_in_training_only() -> None:
    method, batch = make(), make_batch()
    method.eval()
    method(batch, 0.0)
    assert not method.covariance.any()
    method.train()
    method(batch, 0.0)
    assert method.covariance.diag().sum().item() == pytest.approx(0.1, rel=1e-5)  # unit vectors have trace 1
    assert "covariance" in method.state_dict()


def test_loss_is_symmetric_and_more_views_average_the_directions() -> None:
    method, batch = make(), make_batch(3)
    method.eval()
    method.covariance = torch.eye(5)
    a, b, c = batch.views
    pairs = [method(batch._replace(views=pair), 0.0)["invariance"] for pair in ([a, b], [c, a], [b, c])]
    torch.testing.assert_close(method(batch, 0.0)["invariance"], torch.stack(pairs).mean())
    torch.testing.assert_close(
        method(batch._replace(views=[a, b]), 0.0)["loss"], method(batch._replace(views=[b, a]), 0.0)["loss"]
    )


def test_the_target_gets_no_gradient_and_moves_by_the_scheduled_decay() -> None:
    method = make()
    method(make_batch(), 0.0)["loss"].backward()
    assert all(p.grad is None for p in method.target.parameters())
    assert all(p.grad is not None for p in method.projector.parameters())
    before = [p.clone() for p in method.target[0].parameters()]  # type: ignore[index]
    with torch.no_grad():
        for p in method.backbone.parameters():
            p.add_(1)
    method.after_step(0.4)
    moved = 1 - cosine_schedule(0.95, 1.0, 0.4)
    for now, old in zip(method.target[0].parameters(), before, strict=True):  # type: ignore[index]
        torch.testing.assert_close(now, old + moved, atol=1e-6, rtol=1e-5)


def test_bad_values_are_refused() -> None:
    with pytest.raises(ValueError, match=r"method\.contrast_weight"):
        make(contrast_weight=0.0)
    with pytest.raises(ValueError, match=r"method\.covariance_decay"):
        make(covariance_decay=1.0)
    with pytest.raises(ValueError, match=r"method\.ema_decay"):
        make(ema_decay=0.0)
