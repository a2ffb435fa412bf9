"""Each index at most once an epoch; ranks share what one process would see; a start is a skip; bad arithmetic named."""

from itertools import islice

import numpy as np
import pytest

from ssl_zoo.data.order import BatchShare, check_batch, epoch_order, stratified, training_batches


def take(count: int, *args: int, **kwargs: int) -> list[BatchShare]:
    return list(islice(training_batches(*args, **kwargs), count))


def test_an_epoch_is_a_permutation_decided_by_seed_and_epoch() -> None:
    order = epoch_order(100, seed=3, epoch=5)
    assert order.dtype == np.int64
    assert sorted(order) == list(range(100))
    assert (order == epoch_order(100, seed=3, epoch=5)).all()
    for other in (epoch_order(100, 4, 5), epoch_order(100, 3, 6), epoch_order(100, 5, 3)):
        assert (order != other).any()


def test_each_index_at_most_once_an_epoch_and_only_the_last_batch_is_dropped() -> None:
    found = take(9, num_examples=10, batch_size=3, seed=0, start_batch=0)
    assert [share.epoch for share in found] == [0] * 3 + [1] * 3 + [2] * 3
    seen = []
    for epoch in range(3):
        indices = np.concatenate([share.indices for share in found if share.epoch == epoch])
        assert len(set(indices)) == len(indices) == 9
        seen.append(set(indices))
    assert seen[0] | seen[1] | seen[2] == set(range(10))  # another epoch drops another example


@pytest.mark.parametrize("world_size", [2, 3, 6])
def test_ranks_are_disjoint_and_together_are_the_batch_of_one_process(world_size: int) -> None:
    alone = take(8, 40, 12, seed=1, start_batch=0)
    shares = [take(8, 40, 12, seed=1, start_batch=0, rank=rank, world_size=world_size) for rank in range(world_size)]
    for number, whole in enumerate(alone):
        together = np.concatenate([share[number].indices for share in shares])
        assert (together == whole.indices).all()  # disjoint, since an epoch repeats nothing
        assert {share[number].epoch for share in shares} == {whole.epoch}
        assert {len(share[number].indices) for share in shares} == {12 // world_size}


@pytest.mark.parametrize("start", [1, 3, 4, 7, 50])
def test_starting_later_is_skipping(start: int) -> None:
    skipped = take(start + 5, 17, 4, seed=2, start_batch=0)[start:]
    for expected, found in zip(skipped, take(5, 17, 4, seed=2, start_batch=start), strict=True):
        assert expected.epoch == found.epoch
        assert (expected.indices == found.indices).all()


def test_every_size_gives_every_rank_the_same_count() -> None:
    for num_examples in range(2, 18):
        for rank in range(2):
            first = take(1, num_examples, 2, seed=0, start_batch=0, rank=rank, world_size=2)[0]
            assert len(first.indices) == 1


@pytest.mark.parametrize(
    ("num_examples", "batch_size", "world_size", "message"),
    [
        (3, 8, 1, r"data.batch_size=8 is more than the 3 training examples.* data.batch_size=3 or less"),
        (7, 8, 2, r"data.batch_size=8 is more than the 7 .* data.batch_size=6 or less"),
        (0, 1, 1, r"data.batch_size=1 is more than the 0"),
        (100, 0, 1, r"data.batch_size=0 cannot be shared"),
        (100, 9, 2, r"data.batch_size=9 cannot be shared evenly by 2 processes: give a positive multiple of 2"),
    ],
)
def test_impossible_batches_are_named(num_examples: int, batch_size: int, world_size: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_batch(num_examples, batch_size, world_size)
    with pytest.raises(ValueError, match=message):
        next(training_batches(num_examples, batch_size, seed=0, start_batch=0, world_size=world_size))


def test_stratified_draws() -> None:
    labels = np.array([0] * 700 + [1] * 200 + [2] * 100)
    chosen = stratified(labels, 50, seed=0)
    assert np.bincount(labels[chosen]).tolist() == [35, 10, 5]
    assert len(set(chosen)) == 50
    assert (np.diff(chosen) > 0).all()
    assert (chosen == stratified(labels, 50, seed=0)).all()
    assert (chosen != stratified(labels, 50, seed=1)).any()
    assert set(stratified(labels, 20, seed=0)) < set(chosen)  # a smaller draw is part of a larger one
    assert stratified(labels, 1000, seed=0).tolist() == list(range(1000))
    assert np.bincount(labels[stratified(labels, 3, seed=0)], minlength=3).sum() == 3
