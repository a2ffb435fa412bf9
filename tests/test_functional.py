"""Shared maths against loops, known values, identities and a single process."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ssl_zoo import functional
from ssl_zoo.functional import cosine_distance, ema_copy, ema_update, info_nce, similarities


def test_similarities_are_float32_products_under_autocast_too() -> None:
    x, y = torch.randn(2, 5, 64, requires_grad=True), torch.randn(9, 64)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = similarities(x, y)
        half = similarities(x.bfloat16(), y)
    assert found.dtype == half.dtype == torch.float32
    torch.testing.assert_close(found, torch.einsum("abd,kd->abk", x, y))
    (gradient,) = torch.autograd.grad(found.sum(), x)
    torch.testing.assert_close(gradient, y.sum(dim=0).expand_as(x))


def test_info_nce_equals_a_loop() -> None:
    queries, keys = torch.randn(5, 7), torch.randn(9, 7)
    positives = torch.randint(0, 9, (5,))
    hidden = torch.rand(5, 9) < 0.3
    hidden[torch.arange(5), positives] = False
    total = 0.0
    for i in range(5):
        scores = [
            math.exp(float(F.cosine_similarity(queries[i], keys[j], dim=0)) / 0.3) * (not hidden[i, j])
            for j in range(9)
        ]
        total -= math.log(scores[positives[i]] / sum(scores))
    torch.testing.assert_close(info_nce(queries, keys, positives, 0.3, hidden), torch.tensor(total / 5))


def test_info_nce_of_equal_keys_is_log_of_their_number() -> None:
    keys = torch.ones(8, 4)
    loss = info_nce(torch.randn(3, 4), keys, torch.tensor([0, 3, 7]), 0.1, None)
    assert loss.item() == pytest.approx(math.log(8), abs=1e-5)


def test_negative_cosine_is_the_squared_distance_of_unit_vectors() -> None:
    x, y = torch.randn(6, 5), torch.randn(6, 5)
    distance = (F.normalize(x, dim=1) - F.normalize(y, dim=1)).square().sum(dim=1).mean()
    torch.testing.assert_close(cosine_distance(x, y), distance)
    assert cosine_distance(x, 3 * x).item() == pytest.approx(0, abs=1e-6)
    assert cosine_distance(x, -x).item() == pytest.approx(4, abs=1e-6)


def test_ema_averages_parameters_and_copies_statistics() -> None:
    online = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    target = ema_copy(online)
    before = [p.clone() for p in target.parameters()]
    with torch.no_grad():
        for p in online.parameters():
            p.add_(1)
    online(torch.randn(8, 3) * 5)
    ema_update(target, online, 0.9)
    for p, old in zip(target.parameters(), before, strict=True):
        torch.testing.assert_close(p, old + 0.1)
        assert not p.requires_grad
    for mine, theirs in zip(target.buffers(), online.buffers(), strict=True):
        assert torch.equal(mine, theirs)


def test_the_decay_of_an_ema_rises_to_1_along_a_cosine() -> None:
    online, target = nn.Linear(2, 1, bias=False), nn.Linear(2, 1, bias=False)
    for progress, decay in ((0.0, 0.9), (0.5, 0.95), (1.0, 1.0)):
        expected = decay * target.weight + (1 - decay) * online.weight
        functional.ema_update_cosine(target, online, 0.9, progress)
        torch.testing.assert_close(target.weight, expected)


def test_sinkhorn_balances_rows_and_columns() -> None:
    assigned = functional.sinkhorn(torch.randn(12, 4), temperature=0.5, iterations=50)
    torch.testing.assert_close(assigned.sum(1), torch.ones(12))
    torch.testing.assert_close(assigned.sum(0), torch.full((4,), 3.0), atol=1e-4, rtol=0)
    naive = torch.exp(torch.randn(6, 3) / 0.5)
    expected = naive.clone()
    for _ in range(3):
        expected = expected / expected.sum(0) / 3
        expected = expected / expected.sum(1, keepdim=True) / 6
    torch.testing.assert_close(functional.sinkhorn(0.5 * naive.log(), 0.5, 3), 6 * expected)
    flat = functional.sinkhorn(torch.zeros(5, 3), 0.05, 3)
    torch.testing.assert_close(flat, torch.full((5, 3), 1 / 3))


def test_sinkhorn_balances_a_queue_with_the_batch() -> None:
    scores, queued = torch.randn(6, 4), torch.randn(10, 4)
    together = functional.sinkhorn(torch.cat([scores, queued]), 0.5, 3)
    assert torch.equal(functional.sinkhorn(scores, 0.5, 3, queued=queued), together[:6])


def test_local_views_agree_with_global_ones_only() -> None:
    big, small = torch.zeros(2, 3, 8, 8), torch.zeros(2, 3, 4, 4)
    assert functional.view_pairs([big, big]) == [(0, 1), (1, 0)]
    assert functional.view_pairs([big, big, small]) == [(0, 1), (0, 2), (1, 0), (1, 2)]
    assert len(functional.global_views([big, big, small])) == 2


def test_views_of_one_size_go_through_the_network_together() -> None:
    sizes = []
    net = nn.Flatten()
    net.register_forward_hook(lambda module, x, y: sizes.append(len(x[0])))
    views = [torch.randn(2, 3, s, s) for s in (8, 8, 4)]
    for view, out in zip(views, functional.embed_views(net, views), strict=True):
        assert torch.equal(out, view.flatten(1))
    assert sizes == [4, 2]


def test_backbone_and_projector_normalise_the_same_views() -> None:
    """Joint: one pass over all views. Separate: what each view alone gives."""
    backbone = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    projector = nn.Sequential(nn.Linear(4, 2), nn.BatchNorm1d(2))
    views = [torch.randn(6, 3), 3 * torch.randn(6, 3) + 1]
    joint = functional.project_views(backbone, projector, views, "joint")
    torch.testing.assert_close(torch.cat(joint), projector(backbone(torch.cat(views))))
    separate = functional.project_views(backbone, projector, views, "separate")
    for z, view in zip(separate, views, strict=True):
        torch.testing.assert_close(z, projector(backbone(view)))
    assert not torch.allclose(joint[0], separate[0])


def test_views_of_several_shapes_share_the_projector_norm_when_joint() -> None:
    backbone = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.BatchNorm1d(3))
    projector = nn.BatchNorm1d(3)
    views = [torch.randn(5, 3, 8, 8), torch.randn(5, 3, 8, 8), torch.randn(5, 3, 4, 4)]
    z = functional.project_views(backbone, projector, views, "joint")
    h = [backbone(torch.cat(views[:2])), backbone(views[2])]
    torch.testing.assert_close(torch.cat(z), projector(torch.cat(h)))
    assert [len(part) for part in z] == [5, 5, 5]
