import math

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor

from ssl_zoo.evaluators.base import warn_once
from ssl_zoo.evaluators.knn import KNN, votes
from tests.evaluators.fakes import FakeData, blobs, judge


def naive_votes(
    bank: Tensor, labels: Tensor, query: Tensor, k: int, temperature: float, num_classes: int
) -> list[float]:
    """One query (D,), with loops and no tricks."""
    cosines = [float(row @ query / (row.norm() * query.norm())) for row in bank]
    nearest = sorted(range(len(bank)), key=lambda i: -cosines[i])[:k]
    found = [0.0] * num_classes
    for i in nearest:
        found[int(labels[i])] += math.exp(cosines[i] / temperature)
    return found


@pytest.mark.parametrize("k", [1, 5, 60])
def test_votes_equal_a_naive_loop(k: int) -> None:
    (bank, labels), (queries, _) = blobs(60, 8, 4, 0.5), blobs(9, 8, 4, 0.5, seed=1)
    (scores,) = votes(bank, labels, queries, [k], 0.07, 4)
    for score, query in zip(scores, queries, strict=True):
        expected = torch.tensor(naive_votes(bank, labels, query, k, 0.07, 4))
        assert torch.allclose(score * math.exp(1 / 0.07), expected, rtol=1e-3)


def test_equals_scikit_learn_over_several_chunks() -> None:
    train, test = blobs(1500, 16, 7, 0.35), blobs(1100, 16, 7, 0.35, seed=1)
    found = KNN([20, 200], 0.07, center=False)(judge(FakeData(train, test)))
    for key, k in (("knn/top1", 20), ("knn200/top1", 200)):
        oracle = KNeighborsClassifier(
            k, metric="cosine", algorithm="brute", weights=lambda distance: np.exp((1 - distance) / 0.07)
        )
        expected = oracle.fit(*train).score(*test)
        assert 0.3 < expected < 0.95
        assert found[key] == pytest.approx(expected, abs=1.5 / 1100)  # float32 may break a tie in another way


def test_without_a_temperature_each_neighbour_has_one_vote() -> None:
    train, test = blobs(900, 16, 7, 0.35), blobs(700, 16, 7, 0.35, seed=1)
    found = KNN([10], None, center=False)(judge(FakeData(train, test)))
    oracle = KNeighborsClassifier(10, metric="cosine", algorithm="brute").fit(*train)
    assert found["knn/top1"] == pytest.approx(oracle.score(*test), abs=1.5 / 700)


def test_all_k_at_once_equal_one_at_a_time() -> None:
    (bank, labels), (queries, _) = blobs(100, 8, 4, 0.5), blobs(9, 8, 4, 0.5, seed=1)
    both = votes(bank, labels, queries, [3, 50], 0.07, 4)
    assert torch.equal(both[0], votes(bank, labels, queries, [3], 0.07, 4)[0])
    assert torch.equal(both[1], votes(bank, labels, queries, [50], 0.07, 4)[0])


def test_length_of_features_does_not_matter_and_a_common_direction_only_without_centring() -> None:
    train, test = blobs(300, 8, 4, 0.7), blobs(100, 8, 4, 0.7, seed=1)
    plain, centred = KNN([5], 0.07, center=False), KNN([5], 0.07, center=True)
    scaled = FakeData((train[0] * torch.rand(300, 1) * 9, train[1]), test)
    assert plain(judge(scaled)) == plain(judge(FakeData(train, test)))
    shifted = FakeData((train[0] + 50, train[1]), (test[0] + 50, test[1]))
    assert centred(judge(shifted)) == centred(judge(FakeData(train, test)))
    assert plain(judge(shifted)) != plain(judge(FakeData(train, test)))


def test_more_neighbours_than_examples_are_all_of_them_and_said(caplog: pytest.LogCaptureFixture) -> None:
    warn_once.cache_clear()
    data = FakeData(blobs(40, 8, 4, 1.0), blobs(12, 8, 4, 1.0, seed=1))
    found = KNN([20, 200], 0.07, center=False)(judge(data))
    assert found["knn200/top1"] == KNN([40], 0.07, center=False)(judge(data))["knn/top1"]
    assert caplog.messages == ["knn: k=200 is more than the 40 training examples; all of them vote"]


def test_constant_and_zero_features_are_no_accident() -> None:
    y = torch.arange(30) % 3
    for x in (torch.ones(30, 4), torch.zeros(30, 4)):
        assert KNN([20], 0.07, center=True)(judge(FakeData((x, y), (x, y))))["knn/top1"] == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"k": []}, r"knn.k=\[\]"),
        ({"k": [0]}, r"knn.k=\[0\]"),
        ({"k": [20, 20]}, r"knn.k=\[20, 20\]"),
        ({"temperature": 0.0}, "temperature=0.0 must be positive"),
        ({"temperature": -0.07}, "temperature=-0.07"),
        ({"temperature": math.nan}, "temperature=nan"),
    ],
)
def test_bad_settings_name_key_and_value(settings: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        KNN(**({"k": [20], "temperature": 0.07, "center": False} | settings))
