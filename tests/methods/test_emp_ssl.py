"""EMP-SSL's coding rate against eigenvalues and known values, and its loss against a loop over crops."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_zoo.method import Batch
from ssl_zoo.methods.emp_ssl import EMPSSL, total_coding_rate


def make(similarity_weight: float = 200.0, distortion: float = 0.2) -> EMPSSL:
    backbone = nn.Sequential(nn.Flatten(), nn.Linear(12, 6))
    backbone.num_features = 6  # type: ignore[assignment]
    return EMPSSL(backbone, 16, 5, similarity_weight, distortion).eval()


def make_batch(num_views: int = 3, size: int = 7) -> Batch:
    labels = torch.zeros(size, dtype=torch.long)
    return Batch([torch.randn(size, 3, 2, 2) for _ in range(num_views)], labels, labels)


def naive_rate(z: Tensor, distortion: float) -> float:
    """Half the sum of log(1 + D / (N distortion) s^2) over the singular values s."""
    count, width = z.shape
    values = torch.linalg.svdvals(z.double())
    return sum(math.log1p(width / (count * distortion) * float(s) ** 2) for s in values) / 2


@pytest.mark.parametrize("shape", [(20, 5), (5, 20), (1, 8)])
def test_rate_of_more_examples_than_features_and_of_fewer(shape: tuple[int, int]) -> None:
    z = F.normalize(torch.randn(3, *shape), dim=2)
    rates = total_coding_rate(z, 0.2)
    assert rates.tolist() == pytest.approx([naive_rate(crop, 0.2) for crop in z], rel=1e-4)


def test_known_rates() -> None:
    """Of orthonormal vectors D/2 log(1 + 1/distortion); of equal ones 1/2 log(1 + D/distortion)."""
    assert total_coding_rate(torch.eye(4), 0.2).item() == pytest.approx(2 * math.log(6), rel=1e-5)
    same = torch.ones(7, 4) / 2
    assert total_coding_rate(same, 0.2).item() == pytest.approx(math.log(21) / 2, rel=1e-5)


def test_loss_is_the_mean_over_crops() -> None:
    method, batch = make(), make_batch()
    crops = [F.normalize(method.projector(method.backbone(view)), dim=1) for view in batch.views]
    mean = sum(crops) / len(crops)
    expected = 0.0
    for crop in crops:
        cosines = [float(F.cosine_similarity(z, m, dim=0)) for z, m in zip(crop, mean, strict=True)]
        expected -= (naive_rate(crop.detach(), 0.2) + 200 * sum(cosines) / 7) / 3
    assert method(batch, 0.0)["loss"].item() == pytest.approx(expected, rel=1e-4)


def test_views_that_agree_and_spread_are_best() -> None:
    method, batch = make(), make_batch(2)
    agreeing = method(batch._replace(views=[batch.views[0]] * 2), 0.0)
    assert agreeing["similarity"].item() == pytest.approx(1.0)
    assert agreeing["loss"] < method(batch, 0.0)["loss"]
    nn.init.zeros_(method.projector[-1].weight)  # type: ignore[arg-type]
    collapsed = method(batch, 0.0)
    assert collapsed["similarity"].item() == pytest.approx(1.0)
    assert collapsed["coding_rate"].item() == pytest.approx(math.log(26) / 2, rel=1e-5)
    assert collapsed["coding_rate"] < agreeing["coding_rate"]


def test_a_collapse_has_a_finite_gradient() -> None:
    z = (torch.ones(6, 4) / 2).requires_grad_()
    total_coding_rate(z, 0.2).backward()
    assert z.grad is not None
    assert z.grad.isfinite().all()


@pytest.mark.parametrize("bad", [{"distortion": 0.0}, {"similarity_weight": -1.0}])
def test_bad_settings_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"method\."):
        make(**bad)
