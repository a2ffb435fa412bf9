"""Each function equals the plain definition."""

import numpy as np
import pytest

from ssl_zoo.similarity import clusters, mean_similarities, nearest_rows, normalized, similar_pairs, spread_rows


@pytest.fixture
def unit() -> np.ndarray:
    return normalized(np.random.default_rng(0).normal(size=(1500, 6)).astype(np.float32))


def test_lengths_are_one_and_zero_stays() -> None:
    found = normalized(np.float32([[3, 4], [0, 0]]))
    assert np.allclose(found, [[0.6, 0.8], [0, 0]])


def test_nearest_rows_are_sorted_and_leave_the_query_out(unit: np.ndarray) -> None:
    cosines = unit[[7, 900]] @ unit.T
    rows, found = nearest_rows(unit, unit[[7, 900]], 5)
    assert rows.tolist() == [np.argsort(-row)[:5].tolist() for row in cosines]
    assert rows[:, 0].tolist() == [7, 900]
    assert np.allclose(found, -np.sort(-cosines)[:, :5])
    without, _ = nearest_rows(unit, unit[[7, 900]], 4, [7, 900])
    assert without.tolist() == rows[:, 1:].tolist()


def test_more_neighbours_than_there_are(unit: np.ndarray) -> None:
    assert nearest_rows(unit[:3], unit[:1], 8)[0].shape == (1, 3)
    assert nearest_rows(unit[:3], unit[:1], 8, [0])[0].shape == (1, 2)
    assert nearest_rows(unit[:1], unit[:1], 8, [0])[0].shape == (1, 0)


def test_pairs_are_all_above_the_threshold_once(unit: np.ndarray) -> None:
    unit[1400] = unit[3]  # in another block
    cosines = np.triu(unit @ unit.T, 1)
    found = similar_pairs(unit, 0.99, 10_000)
    assert {(i, j) for _, i, j in found} == set(zip(*(cosines >= 0.99).nonzero(), strict=True))
    assert found[0][1:] == (3, 1400)
    assert similar_pairs(unit, 0.99, 4) == found[:4]
    assert [pair[1:] for pair in similar_pairs(unit, 1.0, 10)] == [(3, 1400)], "despite rounding"


def test_mean_similarities_without_the_vector_itself(unit: np.ndarray) -> None:
    cosines = unit @ unit.T
    np.fill_diagonal(cosines, -np.inf)
    assert np.allclose(mean_similarities(unit, 5), -np.sort(-cosines)[:, :5].mean(axis=1), atol=1e-6)
    assert mean_similarities(unit[:2], 5).shape == (2,)


def test_clusters_are_the_groups_and_the_same_each_time() -> None:
    rng = np.random.default_rng(1)
    centres = normalized(rng.normal(size=(3, 8)))
    group = rng.permutation(np.repeat([0, 1, 2], [50, 30, 20]))
    unit = normalized(centres[group] + 0.02 * rng.normal(size=(100, 8)))
    members, rows = clusters(unit, 3)
    assert np.bincount(members).tolist() == [50, 30, 20], "the largest first"
    assert members.tolist() == group.tolist()
    assert group[rows].tolist() == [0, 1, 2]
    assert spread_rows(unit, 3) == sorted(rows.tolist()) == spread_rows(unit, 3)


def test_fewer_vectors_than_clusters() -> None:
    same = np.ones((4, 3)) / 3**0.5
    assert len(spread_rows(same, 8)) == 1
    assert spread_rows(normalized(np.eye(3)), 8) == [0, 1, 2]
