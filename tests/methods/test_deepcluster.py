"""Spherical k-means against scikit-learn and a loop; when and what DeepCluster clusters; its loss."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_zoo.method import Batch
from ssl_zoo.methods.deepcluster import DeepCluster, nearest_centroid, spherical_kmeans


def make(**changes: int) -> DeepCluster:
    backbone = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, 6))
    backbone.num_features = 6  # type: ignore[assignment]
    numbers = {"num_prototypes": 4, "num_clusterings": 2, "num_rounds": 10, "kmeans_iterations": 5, "num_train": 20}
    return DeepCluster(backbone, hidden_dim=16, out_dim=8, temperature=0.1, **(numbers | changes))


def make_batch(first: int = 0, count: int = 6, local: int = 0) -> Batch:
    indices = torch.arange(first, first + count)
    return Batch([torch.randn(count, 3, size, size) for size in [4, 4] + [2] * local], indices, indices)


def projections(method: DeepCluster, batch: Batch) -> list[Tensor]:
    """Unit vectors of each view; BatchNorm sees all views together."""
    z = method.projector(torch.cat([method.backbone(view) for view in batch.views]))
    return list(F.normalize(z, dim=1).chunk(len(batch.views)))


def test_kmeans_equals_a_loop() -> None:
    x = F.normalize(torch.randn(30, 5), dim=1)
    torch.manual_seed(1)
    centroids, assigned = spherical_kmeans(x, 4, 3)
    torch.manual_seed(1)
    expected = [x[i] for i in torch.randperm(30)[:4]]
    for _ in range(3):
        members: list[list[Tensor]] = [[] for _ in range(4)]
        for row in x:
            members[int(torch.stack([row @ c for c in expected]).argmax())].append(row)
        expected = [
            F.normalize(torch.stack(m).sum(0), dim=0) if m else c for m, c in zip(members, expected, strict=True)
        ]
    torch.testing.assert_close(centroids, torch.stack(expected))
    assert torch.equal(assigned, nearest_centroid(x, centroids))


def test_kmeans_finds_what_scikit_learn_finds() -> None:
    """On unit vectors Euclidean k-means from the same start is the same while clusters are tight."""
    from sklearn.cluster import KMeans
    from sklearn.metrics import adjusted_rand_score

    directions = torch.eye(5)[torch.arange(100) % 5]
    x = F.normalize(directions + 0.1 * torch.randn(100, 5), dim=1)
    found = [spherical_kmeans(x, 5, 10)[1].numpy() for _ in range(20)]
    theirs = KMeans(5, n_init=20, random_state=0).fit_predict(x.numpy())
    assert max(adjusted_rand_score(theirs, mine) for mine in found) == 1.0


def test_kmeans_with_fewer_examples_than_centroids_gives_each_its_own() -> None:
    x = torch.eye(3)
    centroids, assigned = spherical_kmeans(x, 8, 2)
    assert centroids.shape == (8, 3)
    torch.testing.assert_close(centroids[assigned], x)


def test_nearest_in_parts_is_nearest() -> None:
    x, centroids = torch.randn(16390, 3), torch.randn(5, 3)
    assert torch.equal(nearest_centroid(x, centroids), (x @ centroids.T).argmax(1))


@pytest.mark.parametrize("local", [0, 2])
def test_loss_equals_the_loop(local: int) -> None:
    method, batch = make(), make_batch(local=local)
    loss = method(batch, 0.0)["loss"]
    total = []
    for c in range(2):
        for z in projections(method, batch):
            for b in range(6):
                logits = torch.stack([z[b] @ centroid for centroid in method.centroids[c]]) / 0.1
                total.append(-F.log_softmax(logits, dim=0)[method.assignments[c, b]].item())
    assert loss.item() == pytest.approx(np.mean(total), rel=1e-4)


def test_equal_centroids_give_log_k() -> None:
    assert make().eval()(make_batch(), 0.0)["loss"].item() == pytest.approx(math.log(4), abs=1e-5)


def test_it_clusters_when_a_round_begins_and_keeps_its_clusters_through_it() -> None:
    method, seen = make(), []
    for step, progress in enumerate((0.0, 0.03, 0.06, 0.1, 0.19, 0.2)):
        method(make_batch(first=6 * (step % 3)), progress)
        seen.append((method.round, method.centroids.clone(), int(method.known.sum())))
    assert [now for now, _, _ in seen] == [0, 0, 0, 1, 1, 2]
    assert [known for _, _, known in seen] == [6, 12, 18, 18, 18, 18]
    same = [torch.equal(a[1], b[1]) for a, b in pairwise(seen)]
    assert same == [True, True, False, True, False]
    assert (method.assignments[:, :18] >= 0).all()
    assert (method.assignments[:, 18:] == -1).all()
    assert not torch.equal(method.centroids[0], method.centroids[1])


def test_the_bank_holds_the_first_views_projections_and_moves_in_training_only() -> None:
    method, batch = make(), make_batch(first=3)
    method.eval()(batch, 0.0)
    assert not method.known.any()
    method.train()(batch, 0.0)
    torch.testing.assert_close(method.bank[3:9], projections(method, batch)[0])
    assert method.known.nonzero().flatten().tolist() == list(range(3, 9))


def test_an_example_the_last_clustering_did_not_know_belongs_to_the_nearest_centroid() -> None:
    method, batch = make(num_clusterings=1), make_batch(first=10)
    method(make_batch(), 0.0)
    loss = method(batch, 0.05)["loss"]
    first, second = projections(method, batch)
    target = nearest_centroid(first, method.centroids[0])
    expected = F.cross_entropy(torch.cat([first, second]) @ method.centroids[0].T / 0.1, target.repeat(2))
    torch.testing.assert_close(loss, expected)


def test_clusters_are_learned_towards_and_get_no_gradient_themselves() -> None:
    method, batch = make(), make_batch()
    method(batch, 0.0)["loss"].backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in method.parameters())
    assert {"bank", "known", "centroids", "assignments", "_extra_state"} <= set(method.state_dict())


@pytest.mark.parametrize("key", ["num_prototypes", "num_rounds", "kmeans_iterations"])
def test_bad_values_are_refused(key: str) -> None:
    with pytest.raises(ValueError, match=rf"method\.{key}"):
        make(**{key: 0})
