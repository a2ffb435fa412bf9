"""Which examples each global batch of training and each evaluation uses: pure functions, so nothing has to be saved.

A step of the optimizer takes one global batch, or several with `trainer.accumulate_grad_batches`; only batches are
counted here.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np


class BatchShare(NamedTuple):
    """One process's share of one global batch.

    Attributes:
        epoch: number of complete passes over the data before it.
        indices: (b,) int64.
    """

    epoch: int
    indices: np.ndarray


def epoch_order(num_examples: int, seed: int, epoch: int) -> np.ndarray:
    """The permutation of the examples in an epoch, (num_examples,) int64."""
    return np.random.default_rng((seed, epoch)).permutation(num_examples)


def check_shares(batch_size: int, world_size: int) -> None:
    """Raises ValueError unless the processes get equal shares of a batch."""
    if batch_size < 1 or batch_size % world_size:
        raise ValueError(
            f"data.batch_size={batch_size} cannot be shared evenly by {world_size} processes: "
            f"give a positive multiple of {world_size}"
        )


def check_batch(num_examples: int, batch_size: int, world_size: int) -> None:
    """Raises ValueError unless an epoch has a full batch and every process gets an equal share of it."""
    check_shares(batch_size, world_size)
    if num_examples < batch_size:
        raise ValueError(
            f"data.batch_size={batch_size} is more than the {num_examples} training examples, so an epoch would hold "
            f"no full batch: give data.batch_size={max(num_examples // world_size * world_size, world_size)} or less"
        )


def training_batches(
    num_examples: int, batch_size: int, seed: int, start_batch: int, rank: int = 0, world_size: int = 1
) -> Iterator[BatchShare]:
    """This process's share of every global batch from `start_batch` on, without end.

    k processes together see the same examples as one. The incomplete batch at the end of an epoch is dropped; in
    another epoch these are other examples.

    Args:
        num_examples: size of the data set.
        batch_size: examples per global batch, over all processes.
        seed: of the order.
        start_batch: global batches to skip.
        rank: of this process.
        world_size: number of processes.

    Raises:
        ValueError: when the batch is larger than the data or not divisible by the number of processes.
    """
    check_batch(num_examples, batch_size, world_size)
    per_epoch, share = num_examples // batch_size, batch_size // world_size
    epoch, position = divmod(start_batch, per_epoch)
    while True:
        order = epoch_order(num_examples, seed, epoch)
        for start in range(position * batch_size, per_epoch * batch_size, batch_size):
            local = start + rank * share
            yield BatchShare(epoch, order[local : local + share])
        epoch, position = epoch + 1, 0


EVAL_SEED = 0
"""Seed for the sample of examples to evaluate on, whatever the seed of the run, so that runs can be compared."""


def stratified(labels: np.ndarray, limit: int, seed: int = EVAL_SEED) -> np.ndarray:
    """Samples `limit` examples, stratified by class.

    Args:
        labels: (N,) int64.
        limit: number of examples; all of them if there are no more.
        seed: of the sample.

    Returns:
        Sorted positions, a pure function of the arguments.
    """
    if len(labels) <= limit:
        return np.arange(len(labels))
    order = np.random.default_rng(seed).permutation(len(labels))
    depth = np.empty(len(labels))  # relative position of an example in its shuffled class, in [0, 1)
    for label in np.unique(labels):
        members = order[labels[order] == label]
        depth[members] = (np.arange(len(members)) + 0.5) / len(members)
    return np.sort(np.lexsort((labels, depth))[:limit])
