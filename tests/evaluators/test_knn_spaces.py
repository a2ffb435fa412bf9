import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier

from ssl_zoo.evaluators.knn_spaces import KNNSpaces, nearest_label, spaces, whitening
from tests.evaluators.fakes import FakeData, blobs, judge


def test_neighbours_vote_as_scikit_learns_do_in_each_space() -> None:
    (x, y), (z, truth) = blobs(300, 6, 5, 0.7), blobs(200, 6, 5, 0.7, seed=1)
    x, z = x * torch.logspace(0, 1, 6) + 3, z * torch.logspace(0, 1, 6) + 3
    found = KNNSpaces(k=7)(judge(FakeData((x, y), (z, truth))))
    accuracies = {}
    for name, (bank, queries) in spaces(x, z).items():
        oracle = KNeighborsClassifier(7).fit(bank.double().numpy(), y)
        accuracies[f"knn_spaces/{name}/top1"] = oracle.score(queries.double().numpy(), truth)
    assert found == pytest.approx(accuracies, abs=0.006)  # one query of 200 may tie


def test_each_space_is_what_it_is_called() -> None:
    x = torch.randn(400, 5, generator=torch.Generator().manual_seed(0)) @ torch.diag(torch.logspace(0, -2, 5)) + 2
    found = spaces(x, x[:9])
    assert torch.equal(found["raw"][0], x)
    mean, matrix = whitening(x)
    white = (x - mean) @ matrix
    assert torch.allclose(white.T @ white / 400, torch.eye(5), atol=1e-3)
    cosine = torch.cosine_similarity(x[0] - x.mean(0), x[1] - x.mean(0), dim=0)
    assert torch.allclose(found["centred"][0][0] @ found["centred"][1][1], cosine, atol=1e-5)


def test_whitening_leaves_out_directions_without_variance() -> None:
    x = torch.randn(50, 3, generator=torch.Generator().manual_seed(0)).repeat(1, 2)  # rank 3 of 6
    assert whitening(x)[1].shape == (6, 3)
    bank, queries = spaces(x[:4], x[:9])["whitened"]  # fewer examples than features
    assert bank.isfinite().all()
    assert queries.isfinite().all()


def test_whitening_finds_classes_in_a_direction_of_small_variance() -> None:
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(400) % 2
    x = torch.stack([100 * torch.randn(400, generator=generator), y + 0.1 * torch.randn(400, generator=generator)], 1)
    found = KNNSpaces(k=5)(judge(FakeData((x[:200], y[:200]), (x[200:], y[200:]))))
    assert found["knn_spaces/whitened/top1"] > 0.9
    assert found["knn_spaces/whitened/top1"] > found["knn_spaces/raw/top1"]


def test_equal_features_and_too_many_neighbours_are_no_error(caplog: pytest.LogCaptureFixture) -> None:
    x, y = torch.ones(4, 3), torch.tensor([0, 1, 1, 1])
    found = KNNSpaces(k=20)(judge(FakeData((x, y), (x, y))))
    assert set(found.values()) == {0.75}
    assert "all of them vote" in caplog.text
    assert nearest_label(x, y, x, 4).tolist() == [1, 1, 1, 1]


def test_no_neighbours_are_refused() -> None:
    with pytest.raises(ValueError, match=r"evaluators\.knn_spaces\.k=0"):
        KNNSpaces(k=0)
