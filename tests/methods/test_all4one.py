"""The three parts of All4One against loops, Barlow Twins' matrix, known values; its sequences and its queue."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ssl_zoo.method import Batch
from ssl_zoo.methods.all4one import All4One, batch_info_nce, feature_contrast, sinusoids
from ssl_zoo.schedules import cosine_schedule


def make(weights: tuple[float, ...] = (0.5, 0.5, 5.0)) -> All4One:
    backbone = nn.Sequential(nn.Flatten(), nn.Linear(12, 6))
    backbone.num_features = 6  # type: ignore[assignment]
    return All4One(backbone, 16, 8, 16, 20, 3, temperature=0.2, weights=list(weights), ema_decay=0.9)


def make_batch(count: int = 2) -> Batch:
    labels = torch.zeros(7, dtype=torch.long)
    return Batch([torch.randn(7, 3, 2, 2) for _ in range(count)], labels, labels)


def test_match_equals_a_loop() -> None:
    queries, keys = torch.randn(6, 5), torch.randn(6, 5)
    total = 0.0
    for i in range(6):
        sims = [math.exp(float(F.cosine_similarity(queries[i], k, dim=0)) / 0.3) for k in keys]
        total -= math.log(sims[i] / sum(sims)) / 6
    assert batch_info_nce(queries, keys, 0.3).item() == pytest.approx(total, rel=1e-5)


def test_feature_contrast_equals_a_loop() -> None:
    pairs = [(torch.randn(9, 4), torch.randn(9, 4)) for _ in range(2)]
    on, off = 0.0, 0.0
    for t, z in pairs:
        for i in range(4):
            for j in range(4):
                c = float(F.cosine_similarity(t[:, i], z[:, j], dim=0))
                on += (1 - c) ** 2 / (2 * 4) if i == j else 0
                off += c**2 / (2 * 12) if i != j else 0
    assert feature_contrast(pairs).item() == pytest.approx((math.sqrt(on) + math.sqrt(off)) / 2, rel=1e-5)


def test_feature_contrast_holds_the_terms_of_lightlys_barlow_twins() -> None:
    """On features that are centred already the matrix is theirs, and squares of both roots give their loss."""
    from lightly.loss import BarlowTwinsLoss

    t, z = torch.randn(40, 5), torch.randn(40, 5)
    t, z = t - t.mean(0), z - z.mean(0)
    c = F.normalize(t, dim=0).T @ F.normalize(z, dim=0)
    on, off = (1 - c.diagonal()).square(), (c - c.diagonal().diag()).square()
    ours = on.sum() + 0.3 * off.sum()
    torch.testing.assert_close(ours, BarlowTwinsLoss(lambda_param=0.3)(t, z), atol=2e-3, rtol=2e-3)
    torch.testing.assert_close(feature_contrast([(t, z)]), (on.mean().sqrt() + (off.sum() / 20).sqrt()) / 2)


def test_the_slope_of_feature_contrast_is_bounded_where_a_feature_is_nothing() -> None:
    z = torch.zeros(8, 3, requires_grad=True)
    feature_contrast([(torch.randn(8, 3), z)]).backward()
    assert z.grad is not None
    assert z.grad.norm() < 1 / 0.01


def test_feature_contrast_of_equal_orthogonal_features_is_nothing_and_its_slope_finite() -> None:
    z = torch.linalg.qr(torch.randn(12, 4)).Q.requires_grad_()
    loss = feature_contrast([(z.detach(), z)])
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-5)
    assert z.grad is not None
    assert z.grad.isfinite().all()


def test_sinusoids_are_those_of_the_transformer_paper() -> None:
    table = sinusoids(6, 8)
    for position in range(6):
        for i in range(4):
            angle = position / 10_000 ** (2 * i / 8)
            assert table[position, i].item() == pytest.approx(math.sin(angle), abs=1e-6)
            assert table[position, 4 + i].item() == pytest.approx(math.cos(angle), abs=1e-6)


@pytest.mark.parametrize("weights", [(0.5, 0.5, 5.0), (1.0, 0.0, 0.0), (0.0, 2.0, 0.0), (0.0, 0.0, 1.0)])
def test_loss_is_the_weighted_sum_of_section_3(weights: tuple[float, ...]) -> None:
    method, batch = make(weights).eval(), make_batch()
    z1, z2 = (method.projector(method.backbone(view)) for view in batch.views)
    t1, t2 = (F.normalize(method.target(view), dim=1) for view in batch.views)
    n1, n2 = method.queue.nearest(t1, 3), method.queue.nearest(t2, 3)

    def summary(*tokens: torch.Tensor) -> torch.Tensor:
        return method.transformer(torch.stack(tokens, dim=1) + sinusoids(3, 8))[:, 0]

    neighbour = (
        batch_info_nce(n1[:, 0], method.predictor(z2), 0.2) + batch_info_nce(n2[:, 0], method.predictor(z1), 0.2)
    ) / 2
    c1, c2 = summary(*n1.unbind(1)), summary(*n2.unbind(1))
    s1 = summary(method.centroid_predictor(z1), n1[:, 0], n1[:, 1])
    s2 = summary(method.centroid_predictor(z2), n2[:, 0], n2[:, 1])
    centroid = (batch_info_nce(c1, s2, 0.2) + batch_info_nce(c2, s1, 0.2)) / 2
    feature = feature_contrast([(t1, z2), (t2, z1)])
    scalars = method(batch, 0.0)
    for name, expected in (("neighbour", neighbour), ("centroid", centroid), ("feature", feature)):
        torch.testing.assert_close(scalars[name], expected)
    torch.testing.assert_close(scalars["loss"], weights[0] * neighbour + weights[1] * centroid + weights[2] * feature)


def test_the_loss_is_symmetric_and_takes_local_views() -> None:
    method, batch = make().eval(), make_batch()
    swapped = batch._replace(views=batch.views[::-1])
    torch.testing.assert_close(method(swapped, 0.0)["loss"], method(batch, 0.0)["loss"])
    backbone = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 6))
    method.backbone, method.target = backbone, nn.Sequential(backbone, method.projector)
    views = [torch.randn(7, 3, size, size) for size in (4, 4, 2, 2)]
    assert method(batch._replace(views=views), 0.0)["loss"].isfinite()


def test_the_queue_gets_the_targets_projections_of_the_first_view_and_the_target_no_gradient() -> None:
    method, batch = make(), make_batch()
    before = method.queue.keys
    method.eval()(batch, 0.0)
    assert torch.equal(method.queue.keys, before)
    method.train()(batch, 0.0)["loss"].backward()
    pushed = F.normalize(method.target(batch.views[0]), dim=1)
    torch.testing.assert_close(method.queue.keys, torch.cat([pushed, before[7:]]))
    assert all(p.grad is None for p in method.target.parameters())
    assert all(p.grad is not None for p in method.parameters() if p.requires_grad)


def test_the_target_moves_by_the_scheduled_decay() -> None:
    method = make()
    before = [p.clone() for p in method.target.parameters()]
    with torch.no_grad():
        for p in nn.Sequential(method.backbone, method.projector).parameters():
            p.add_(1)
    method.after_step(0.3)
    for now, old in zip(method.target.parameters(), before, strict=True):
        torch.testing.assert_close(now, old + 1 - cosine_schedule(0.9, 1.0, 0.3), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(
    ("key", "value"), [("out_dim", 12), ("num_neighbours", 40), ("weights", [1.0, 1.0]), ("temperature", 0)]
)
def test_bad_values_are_refused(key: str, value: float | list[float]) -> None:
    backbone = nn.Linear(2, 2)
    backbone.num_features = 2  # type: ignore[assignment]
    values: dict = {"hidden_dim": 8, "out_dim": 8, "predictor_hidden_dim": 8, "queue_size": 20, "num_neighbours": 3}
    values |= {"temperature": 0.2, "weights": [1.0, 1.0, 1.0], "ema_decay": 0.9, key: value}
    with pytest.raises(ValueError, match=rf"method\.{key}"):
        All4One(backbone, **values)
