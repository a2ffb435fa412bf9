"""Whitening by its definition, at every batch size; W-MSE's loss against a loop and lightly."""

import pytest
import torch
from torch import Tensor, nn

from ssl_zoo.method import Batch
from ssl_zoo.methods.wmse import WMSE, whiten

MIX = torch.eye(6) + 0.5 * torch.ones(6, 6).triu(1)  # features that correlate, yet are far from dependent


def make(whitening_size: int = 8, eps: float = 1e-7) -> WMSE:
    backbone = nn.Sequential(nn.Flatten(), nn.Linear(12, 6))
    backbone.num_features = 6  # type: ignore[assignment]
    return WMSE(backbone, 16, 4, whitening_size, eps)


def make_batch(size: int = 16, num_views: int = 2) -> Batch:
    labels = torch.zeros(size, dtype=torch.long)
    return Batch([torch.randn(size, 3, 2, 2) for _ in range(num_views)], labels, labels)


def project(method: WMSE, batch: Batch) -> Tensor:
    return method.projector(method.backbone(torch.cat(batch.views)))


def test_whitened_rows_have_mean_zero_and_the_identity_as_covariance() -> None:
    z = torch.randn(50, 6) @ MIX + 3
    white = whiten(z, 1e-6)
    torch.testing.assert_close(white.mean(dim=0), torch.zeros(6), atol=1e-4, rtol=0)
    torch.testing.assert_close(white.T @ white / 49, torch.eye(6), atol=1e-3, rtol=0)
    torch.testing.assert_close(whiten(100 * z, 1e-3), whiten(z, 1e-3), atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(whiten(z.flip(0), 1e-3), whiten(z, 1e-3).flip(0), atol=1e-3, rtol=1e-3)


def test_whitening_is_triangular() -> None:
    """The inverse Cholesky factor: the first whitened feature is the first one standardised."""
    z = torch.randn(50, 6) @ MIX
    first = (z[:, 0] - z[:, 0].mean()) / z[:, 0].std()
    torch.testing.assert_close(whiten(z, 1e-7)[:, 0], first, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("z", [torch.randn(8, 64), torch.randn(2, 16), torch.ones(8, 64), torch.zeros(8, 4)])
def test_few_and_collapsed_rows_stay_finite(z: Tensor) -> None:
    z = z.clone().requires_grad_()
    (whiten(z, 1e-3) * torch.randn(z.shape)).sum().backward()
    assert z.grad is not None
    assert whiten(z, 1e-3).isfinite().all()
    assert z.grad.isfinite().all()


def test_few_rows_span_white_dimensions() -> None:
    """8 rows in 64 dimensions: 7 of them get variance close to 1, the others none."""
    white = whiten(torch.randn(8, 64), 1e-5)
    values = torch.linalg.eigvalsh(white.T @ white / 7)
    torch.testing.assert_close(values[-7:], torch.ones(7), atol=1e-3, rtol=0)
    torch.testing.assert_close(values[:-7], torch.zeros(57), atol=1e-3, rtol=0)


def test_loss_equals_a_loop_over_groups_pairs_and_rows() -> None:
    method, batch = make(), make_batch(num_views=3)
    torch.manual_seed(5)
    loss = method(batch, 0.0)["loss"]
    torch.manual_seed(5)
    groups = torch.randperm(16).view(2, 8)
    z, total = project(method, batch).detach().chunk(3), 0.0
    for group in groups:
        for i, j in ((0, 1), (0, 2), (1, 2)):
            for a, b in zip(whiten(z[i][group], 1e-7), whiten(z[j][group], 1e-7), strict=True):
                total += float((a / a.norm() - b / b.norm()).square().sum()) / (3 * 16)
    assert loss.item() == pytest.approx(total, rel=1e-4)


def test_loss_equals_lightly() -> None:
    from lightly.loss.wmse_loss import WMSELoss

    method, batch = make(), make_batch()
    torch.manual_seed(5)
    loss = method(batch, 0.0)["loss"]
    torch.manual_seed(5)
    theirs = WMSELoss(embedding_dim=4, w_size=8, num_samples=2)(project(method, batch))
    torch.testing.assert_close(loss, theirs, atol=1e-4, rtol=1e-4)


def test_views_that_agree_cost_nothing() -> None:
    method, batch = make(eps=1e-3), make_batch()
    method.eval()
    same = batch._replace(views=[batch.views[0]] * 2)
    assert method(same, 0.0)["loss"].item() == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("size", [2, 5, 8, 21])
def test_any_batch_size_is_whitened(size: int) -> None:
    """Fewer rows than a group, or some left over."""
    method = make(eps=1e-3)
    loss = method(make_batch(size), 0.0)["loss"]
    loss.backward()
    assert 0 <= loss.item() <= 4
    assert all(p.grad is not None and p.grad.isfinite().all() for p in method.parameters())


def test_bad_values_are_refused() -> None:
    with pytest.raises(ValueError, match=r"method\.whitening_size=7"):
        make(whitening_size=7)
    with pytest.raises(ValueError, match=r"method\.eps"):
        make(eps=0.0)
