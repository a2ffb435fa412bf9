"""SupCon against a loop over Eq. 2, known values, its limit SimCLR, and pairs over two processes."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_zoo.distributed import all_reduce_mean, rank, world_size
from ssl_zoo.method import Batch
from ssl_zoo.methods.simclr import nt_xent
from ssl_zoo.methods.supcon import SupCon, supcon_loss
from tests import distributed


def naive(z: list[Tensor], num_global: int, labels: Tensor, temperature: float) -> float:
    """Eq. 2, mean over anchors with a positive; candidates of an anchor are all other global views."""
    anchors = [(v, i) for v in range(len(z)) for i in range(len(labels))]
    losses = []
    for v, i in anchors:
        candidates = [(w, j) for w, j in anchors if (w, j) != (v, i) and w < num_global]
        sims = {(w, j): float(F.cosine_similarity(z[v][i], z[w][j], dim=0)) / temperature for w, j in candidates}
        denominator = sum(math.exp(s) for s in sims.values())
        friends = [c for c in candidates if labels[c[1]] == labels[i]]
        if friends:
            losses.append(-sum(math.log(math.exp(sims[c]) / denominator) for c in friends) / len(friends))
    return sum(losses) / len(losses)


@pytest.mark.parametrize(("views", "num_global"), [(2, 2), (3, 3), (4, 2)])
def test_the_loop_over_equation_2(views: int, num_global: int) -> None:
    z, labels = [torch.randn(6, 8) for _ in range(views)], torch.tensor([0, 1, 0, 2, 1, 0])
    ours = supcon_loss(z, num_global, labels, 0.3).item()
    assert ours == pytest.approx(naive(z, num_global, labels, 0.3), rel=1e-5)


@pytest.mark.parametrize("labels", [range(6), [0, 1, 2, 3, 4, 4]])
def test_anchors_without_a_positive_do_not_count(labels: list[int]) -> None:
    """With one global view an example alone in its class has none as that view, but as a local one."""
    z = [torch.randn(6, 8, requires_grad=True) for _ in range(2)]
    expected = naive([x.detach() for x in z], 1, torch.tensor(labels), 0.3)
    loss = supcon_loss(z, 1, torch.tensor(labels), 0.3)
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    loss.backward()
    assert all(x.grad is not None and x.grad.isfinite().all() for x in z)


def test_a_batch_without_any_positive_costs_nothing() -> None:
    z = torch.randn(6, 8, requires_grad=True)
    loss = supcon_loss([z], 1, torch.arange(6), 0.3)
    loss.backward()
    assert loss.item() == 0
    assert z.grad is not None
    assert not z.grad.any()


def test_with_unique_labels_it_is_simclr() -> None:
    z = [torch.randn(9, 5), torch.randn(9, 5)]
    torch.testing.assert_close(supcon_loss(z, 2, torch.randperm(9), 0.2), nt_xent(z[0], z[1], 0.2))


def test_collapsed_projections_cost_the_log_of_the_candidates() -> None:
    z, labels = torch.ones(10, 4), torch.arange(10) % 3
    assert supcon_loss([z, z], 2, labels, 0.2).item() == pytest.approx(math.log(19), abs=1e-5)


def test_classes_apart_reach_the_log_of_the_class_size() -> None:
    """With each class in one point and the others opposite, an anchor still shares with its own class: 2 * 4 - 1."""
    z = F.normalize(torch.tensor([[1.0, 0], [-1.0, 0]])).repeat_interleave(4, dim=0)
    labels = torch.tensor([0, 1]).repeat_interleave(4)
    assert supcon_loss([z, z], 2, labels, 0.05).item() == pytest.approx(math.log(7), abs=1e-5)


def test_order_scale_and_names_of_classes_do_not_matter() -> None:
    z, labels = [torch.randn(7, 4), torch.randn(7, 4)], torch.tensor([0, 0, 1, 2, 2, 2, 1])
    loss, order = supcon_loss(z, 2, labels, 0.2), torch.randperm(7)
    torch.testing.assert_close(supcon_loss([3 * z[1], z[0]], 2, 5 - labels, 0.2), loss)
    torch.testing.assert_close(supcon_loss([v[order] for v in z], 2, labels[order], 0.2), loss)


def backbone() -> nn.Module:
    net = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, 6))
    net.num_features = 6  # type: ignore[assignment]
    return net


def test_local_crops_are_anchors_only() -> None:
    method = SupCon(backbone(), hidden_dim=8, out_dim=4, temperature=0.2).eval()
    views = [torch.randn(5, 3, 4, 4), torch.randn(5, 3, 4, 4), torch.randn(5, 3, 2, 2)]
    labels = torch.tensor([0, 1, 1, 2, 0])
    z = [method.projector(method.backbone(view)) for view in views]
    expected = supcon_loss(z, 2, labels, 0.2)
    torch.testing.assert_close(method(Batch(views, labels, labels), 0.0)["loss"], expected)


def test_bad_temperature_is_refused() -> None:
    with pytest.raises(ValueError, match=r"method\.temperature"):
        SupCon(backbone(), 8, 4, 0)


def shared(num_global: int) -> tuple[Tensor, Tensor]:
    """Loss and gradient of three views, `num_global` of them global, as DistributedDataParallel would average them."""
    torch.manual_seed(0)
    z = torch.randn(3, 8, 4)
    mine = [view.chunk(world_size())[rank()].clone().requires_grad_() for view in z]
    labels = torch.tensor([0, 1, 0, 2, 1, 0, 0, 3]).chunk(world_size())[rank()]
    loss = supcon_loss(mine, num_global, labels, 0.2)
    loss.backward()
    return all_reduce_mean(loss.detach()), torch.stack([view.grad for view in mine]) / world_size()


@pytest.mark.parametrize("num_global", [1, 2])
def test_two_processes_equal_one(num_global: int) -> None:
    """With one global view the processes hold unequally many anchors with a positive."""
    loss, gradient = shared(num_global)
    found = distributed.run(2, shared, num_global)
    torch.testing.assert_close(found[0][0], loss)
    torch.testing.assert_close(torch.cat([part for _, part in found], dim=1), gradient, atol=1e-6, rtol=1e-5)
