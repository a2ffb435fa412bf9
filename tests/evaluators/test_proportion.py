"""Wilson's interval against its definition, known values and its coverage; a Proportion is a float that keeps its n."""

import copy
import json
import math
import pickle

import numpy as np
import pytest
import torch
from scipy import stats

from ssl_zoo.evaluators.proportion import Proportion, hash_examples, is_greater, wilson


@pytest.mark.parametrize(
    ("share", "n"), [(0.0, 1), (0.0, 400), (0.5, 10), (0.94, 400), (1.0, 1), (1.0, 48), (1.0, 10**7)]
)
def test_wilson_is_scipys_and_stays_within_0_and_1(share: float, n: int) -> None:
    low, high = wilson(share, n)
    expected = stats.binomtest(round(share * n), n).proportion_ci(0.95, "wilson")
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=1e-9)
    assert 0 <= low <= share <= high <= 1


def test_its_ends_are_the_shares_that_are_just_not_refused() -> None:
    for p in wilson(0.94, 400):
        assert abs(0.94 - p) / math.sqrt(p * (1 - p) / 400) == pytest.approx(1.959964)


@pytest.mark.parametrize("p", [0.02, 0.3, 0.97])
def test_it_covers_about_95_percent(p: float) -> None:
    shares = np.random.default_rng(0).binomial(400, p, 4000) / 400
    covered = [low <= p <= high for low, high in (wilson(share, 400) for share in shares)]
    assert 0.93 < np.mean(covered) < 0.97


def test_a_proportion_is_a_float_with_its_n() -> None:
    share = Proportion(0.94, 400)
    assert share == 0.94
    assert json.loads(json.dumps({"top1": share})) == {"top1": 0.94}
    assert share.percent == "94.0 % (91.2 to 95.9)"
    assert [part.n for part in (pickle.loads(pickle.dumps(share)), copy.deepcopy(share))] == [400, 400]
    for value, n in ((1.1, 10), (-0.1, 10), (float("nan"), 10), (0.5, 0)):
        with pytest.raises(ValueError, match="no proportion"):
            Proportion(value, n)


def test_a_proportion_knows_which_examples_were_right() -> None:
    right = torch.tensor([True, False, True, True])
    share = Proportion.of(right, "of four")
    assert (share, share.n, share.examples) == (0.75, 4, "of four")
    for kept in (share, pickle.loads(pickle.dumps(share)), copy.deepcopy(share)):
        assert kept.right is not None
        assert kept.right.tolist() == right.tolist()
    assert Proportion(0.75, 4).right is None
    with pytest.raises(ValueError, match="no proportion"):
        Proportion.of([])


def test_a_hash_tells_examples_and_orders_apart() -> None:
    parts = [("ab", "c"), ("a", "bc"), (torch.arange(3),), (torch.arange(3).flip(0),), (None,), ({"b": [1], "a": 2},)]
    assert len({hash_examples(*part) for part in parts}) == len(parts)
    assert hash_examples(torch.arange(3)) == hash_examples(np.arange(3))
    assert hash_examples({"a": 1, "b": 2}) == hash_examples({"b": 2, "a": 1})


def test_greater_means_by_more_than_chance() -> None:
    before = Proportion(0.94, 400)
    assert is_greater(Proportion(0.98, 400), before)
    assert not is_greater(Proportion(0.96, 400), before)
    assert is_greater(Proportion(0.96, 40_000), Proportion(0.94, 40_000))
    assert not is_greater(before, before)
    assert not is_greater(Proportion(1.0, 9), Proportion(1.0, 9))
