"""DCL and DCLW against a loop over Eq. 6, known values, identities, lightly, and over two processes."""

import math
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_zoo.distributed import all_reduce_mean, rank, world_size
from ssl_zoo.method import Batch
from ssl_zoo.methods.dcl import DCL, dcl_loss
from ssl_zoo.methods.simclr import nt_xent
from tests import distributed


def naive(z1: Tensor, z2: Tensor, temperature: float, sigma: float | None) -> float:
    def cos(a: Tensor, b: Tensor) -> float:
        return float(F.cosine_similarity(a, b, dim=0))

    count, views, total = len(z1), (z1, z2), 0.0
    likelihood = [math.exp(cos(z1[i], z2[i]) / (sigma or 1)) for i in range(count)]
    for k in (0, 1):
        for i in range(count):
            weight = 1.0 if sigma is None else 2 - likelihood[i] / (sum(likelihood) / count)
            others = [views[m][j] for m in (0, 1) for j in range(count) if j != i]
            negatives = sum(math.exp(cos(views[k][i], other) / temperature) for other in others)
            total += -weight * cos(z1[i], z2[i]) / temperature + math.log(negatives)
    return total / (2 * count)


@pytest.mark.parametrize("sigma", [None, 0.5, 0.1])
def test_the_loop_over_equation_6(sigma: float | None) -> None:
    z1, z2 = torch.randn(6, 8), torch.randn(6, 8)
    assert dcl_loss(z1, z2, 0.2, sigma).item() == pytest.approx(naive(z1, z2, 0.2, sigma), rel=1e-5)


def test_lightly_has_the_same_loss_and_gradient() -> None:
    from lightly.loss import DCLLoss, DCLWLoss

    for theirs, sigma in ((DCLLoss(temperature=0.2), None), (DCLWLoss(temperature=0.2, sigma=0.5), 0.5)):
        z1, z2 = torch.randn(16, 32, requires_grad=True), torch.randn(16, 32)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # theirs copies a tensor in a way torch warns about
            expected = theirs(z1, z2)
        ours = dcl_loss(z1, z2, 0.2, sigma)
        torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)
        (mine,), (their,) = torch.autograd.grad(ours, z1), torch.autograd.grad(expected, z1)
        torch.testing.assert_close(mine, their, atol=1e-5, rtol=1e-4)


def test_collapsed_projections() -> None:
    z = torch.ones(10, 4)
    for sigma in (None, 0.5):  # all weights are 1
        assert dcl_loss(z, z, 0.2, sigma).item() == pytest.approx(math.log(18), abs=1e-5)  # 2B - 2 negatives


def test_simclr_differs_by_the_positive_in_the_denominator() -> None:
    """For each query exp(NT-Xent) = exp(DCL) + 1; one value for all queries where all are alike by symmetry."""
    z = F.normalize(torch.eye(4))
    assert math.exp(nt_xent(z, z, 0.5)) == pytest.approx(math.exp(dcl_loss(z, z, 0.5, None)) + 1, rel=1e-5)


@pytest.mark.parametrize("sigma", [None, 0.5])
def test_views_are_exchangeable_and_scale_and_order_do_not_matter(sigma: float | None) -> None:
    z1, z2 = torch.randn(9, 5), torch.randn(9, 5)
    loss, order = dcl_loss(z1, z2, 0.3, sigma), torch.randperm(9)
    for other in (
        dcl_loss(z2, z1, 0.3, sigma),
        dcl_loss(3 * z1, 7 * z2, 0.3, sigma),
        dcl_loss(z1[order], z2[order], 0.3, sigma),
    ):
        torch.testing.assert_close(other, loss)


def test_a_wide_sigma_is_dcl_and_a_narrow_one_stays_finite() -> None:
    z1, z2 = torch.randn(9, 5), torch.randn(9, 5)
    torch.testing.assert_close(dcl_loss(z1, z2, 0.3, 1e6), dcl_loss(z1, z2, 0.3, None))
    assert dcl_loss(z1, z2, 0.3, 1e-4).isfinite()


def backbone() -> nn.Module:
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 6))
    net.num_features = 6  # type: ignore[assignment]
    return net


def test_more_views_average_the_pairs() -> None:
    method = DCL(backbone(), hidden_dim=8, out_dim=4, temperature=0.2, sigma=0.5).eval()
    views, labels = [torch.randn(5, 3, 2, 2) for _ in range(3)], torch.zeros(5, dtype=torch.long)
    z = [method.projector(method.backbone(view)) for view in views]
    expected = sum(dcl_loss(z[i], z[j], 0.2, 0.5) for i, j in ((0, 1), (0, 2), (1, 2))) / 3
    torch.testing.assert_close(method(Batch(views, labels, labels), 0.0)["loss"], expected)


@pytest.mark.parametrize(("temperature", "sigma", "key"), [(0, None, "temperature"), (0.1, 0, "sigma")])
def test_bad_values_are_refused(temperature: float, sigma: float | None, key: str) -> None:
    with pytest.raises(ValueError, match=rf"method\.{key}"):
        DCL(backbone(), 8, 4, temperature, sigma)


def shared(sigma: float | None) -> tuple[Tensor, Tensor]:
    """Loss and gradient as DistributedDataParallel would average them."""
    torch.manual_seed(0)
    mine = [torch.randn(8, 4).chunk(world_size())[rank()].clone().requires_grad_() for _ in range(2)]
    loss = dcl_loss(mine[0], mine[1], 0.2, sigma)
    loss.backward()
    return all_reduce_mean(loss.detach()), torch.stack([view.grad for view in mine]) / world_size()  # type: ignore[misc]


def both() -> list[tuple[Tensor, Tensor]]:
    return [shared(None), shared(0.5)]


def test_two_processes_equal_one() -> None:
    found = distributed.run(2, both)
    for (loss, gradient), first, second in zip(both(), *found, strict=True):
        torch.testing.assert_close(first[0], loss)
        torch.testing.assert_close(torch.cat([first[1], second[1]], dim=1), gradient, atol=1e-6, rtol=1e-5)
