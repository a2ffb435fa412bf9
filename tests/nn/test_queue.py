"""The queue keeps the newest, in order, and is what a checkpoint holds."""

import torch
import torch.nn.functional as F

from ssl_zoo.nn.queue import Queue


def test_oldest_are_overwritten_first() -> None:
    queue = Queue(5, 1)
    seen = torch.arange(12.0)
    for batch in seen.split(3):
        queue.push(batch[:, None], batch.long())
        newest = sorted(seen[: int(batch[-1]) + 1][-5:].tolist())
        assert set(newest) <= set(queue.keys.flatten().tolist())


def test_a_batch_larger_than_the_queue_leaves_its_last() -> None:
    queue = Queue(4, 1)
    queue.push(torch.arange(10.0)[:, None], torch.arange(10))
    assert sorted(queue.keys.flatten().tolist()) == [6, 7, 8, 9]


def test_a_loss_can_use_the_keys_before_they_change() -> None:
    queue, x = Queue(4, 3), torch.randn(2, 3, requires_grad=True)
    loss = (x @ queue.keys.T).sum()
    expected = queue.keys.sum(0).clone()
    queue.push(x, torch.arange(2))
    loss.backward()
    torch.testing.assert_close(x.grad[0], expected)


def test_state_dict_round_trip() -> None:
    queue, other = Queue(4, 3), Queue(4, 3)
    queue.push(torch.randn(3, 3), torch.arange(3))
    other.load_state_dict(queue.state_dict())
    assert torch.equal(queue.keys, other.keys)
    assert queue.position == other.position == 3


def test_neighbours_are_those_of_smallest_distance_best_first() -> None:
    queue, z = Queue(12, 4), F.normalize(torch.randn(5, 4), dim=1)
    for row, found in zip(z, queue.nearest(3 * z, 3), strict=True):
        order = (queue.keys - row).square().sum(dim=1).argsort()
        assert torch.equal(found, queue.keys[order[:3]])


def test_the_queue_knows_which_keys_are_of_an_example() -> None:
    queue = Queue(4, 3)
    assert not queue.same_example(torch.arange(9)).any()  # random keys are nobody's
    queue.push(torch.randn(3, 3), torch.tensor([5, 2, 7]))
    queue.push(torch.randn(2, 3), torch.tensor([2, 8]))  # the last overwrites the key of 5
    expected = torch.tensor([[False] * 4, [False, True, False, True], [True, False, False, False]])
    assert torch.equal(queue.same_example(torch.tensor([5, 2, 8])), expected)


def test_a_queue_shorter_than_the_batch_keeps_the_indices_of_its_keys() -> None:
    queue = Queue(4, 1)
    queue.push(torch.arange(10.0)[:, None], torch.arange(10))
    assert torch.equal(queue.keys[:, 0].long(), queue.indices)
