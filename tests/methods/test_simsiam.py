"""SimSiam's loss against a loop and lightly; its stop-gradient and its heads."""

import pytest
import torch
from torch import Tensor, nn

from ssl_zoo.method import Batch
from ssl_zoo.methods.simsiam import SimSiam


def make() -> SimSiam:
    backbone = nn.Sequential(nn.Flatten(), nn.Linear(12, 6))
    backbone.num_features = 6  # type: ignore[assignment]
    return SimSiam(backbone, hidden_dim=16, out_dim=8, predictor_hidden_dim=4)


def make_batch(count: int = 2) -> Batch:
    labels = torch.zeros(7, dtype=torch.long)
    return Batch([torch.randn(7, 3, 2, 2) for _ in range(count)], labels, labels)


def heads(method: SimSiam, view: Tensor) -> tuple[Tensor, Tensor]:
    z = method.projector(method.backbone(view))
    return method.predictor(z), z


@torch.no_grad()
def test_loss_is_eq_2() -> None:
    method, batch = make(), make_batch()
    (p1, z1), (p2, z2) = (heads(method, view) for view in batch.views)
    total = 0.0
    for p, z in ((p1, z2), (p2, z1)):
        for a, b in zip(p, z, strict=True):
            total -= 0.5 * float(a @ b / (a.norm() * b.norm())) / len(p)
    assert method(batch, 0.0)["loss"].item() == pytest.approx(total, abs=1e-6)


def test_loss_and_gradient_equal_lightlys() -> None:
    from lightly.loss import NegativeCosineSimilarity

    method, batch = make(), make_batch()
    (p1, z1), (p2, z2) = (heads(method, view) for view in batch.views)
    theirs = 0.5 * (NegativeCosineSimilarity()(p1, z2.detach()) + NegativeCosineSimilarity()(p2, z1.detach()))
    loss = method(batch, 0.0)["loss"]
    torch.testing.assert_close(loss, theirs)
    parameters = list(method.parameters())
    for ours, other in zip(torch.autograd.grad(loss, parameters), torch.autograd.grad(theirs, parameters), strict=True):
        torch.testing.assert_close(ours, other)


def test_projections_predicted_exactly_cost_minus_one() -> None:
    method, batch = make(), make_batch(1)
    method.predictor = nn.Identity()  # type: ignore[assignment]
    loss = method(batch._replace(views=batch.views * 2), 0.0)["loss"]
    assert loss.item() == pytest.approx(-1, abs=1e-6)


def test_loss_is_symmetric_and_more_views_average_the_directions() -> None:
    method, batch = make(), make_batch(3)

    def loss(*numbers: int) -> Tensor:
        return method(batch._replace(views=[batch.views[i] for i in numbers]), 0.0)["loss"]

    torch.testing.assert_close(loss(0, 1), loss(1, 0))
    torch.testing.assert_close(loss(0, 1, 2), (loss(0, 1) + loss(0, 2) + loss(1, 2)) / 3)


def test_projections_leave_the_projector_centred_and_of_unit_variance() -> None:
    _, z = heads(make(), make_batch().views[0])
    torch.testing.assert_close(z.mean(0), torch.zeros(8), atol=1e-5, rtol=0)
    torch.testing.assert_close(z.var(0, unbiased=False), torch.ones(8), atol=1e-2, rtol=0)


def test_only_the_predictor_learns_at_a_constant_rate_and_everything_gets_a_gradient() -> None:
    method = make()
    assert method.constant_rate == ("predictor",)
    assert method.get_submodule("predictor") is method.predictor
    method(make_batch(), 0.0)["loss"].backward()
    assert all(p.grad is not None for p in method.parameters())


@pytest.mark.parametrize("width", [0, -4])
def test_bad_width_is_refused(width: int) -> None:
    backbone = nn.Linear(2, 2)
    backbone.num_features = 2  # type: ignore[assignment]
    with pytest.raises(ValueError, match=r"method\.predictor_hidden_dim"):
        SimSiam(backbone, 8, 4, width)
