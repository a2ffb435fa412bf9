"""Which examples make each training step: a pure function of (seed, step), so nothing has to be saved or replayed."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np


class Step(NamedTuple):
    """One process's share of one global batch. epoch: passes over the data completed; indices: (b,) int64."""

    epoch: int
    indices: np.ndarray


def epoch_order(num_examples: int, seed: int, epoch: int) -> np.ndarray:
    """The permutation of `num_examples` that epoch `epoch` follows, (num_examples,) int64."""
    return np.random.default_rng((seed, epoch)).permutation(num_examples)


def check_batch(num_examples: int, batch_size: int, world_size: int) -> None:
    """Refuses arithmetic that would train on nothing or on uneven shares.

    Raises:
        ValueError: naming the key, the numbers and the fix.
    """
    if batch_size < 1 or batch_size % world_size:
        raise ValueError(
            f"data.batch_size={batch_size} cannot be shared evenly by {world_size} processes: "
            f"give a positive multiple of {world_size}"
        )
    if num_examples < batch_size:
        raise ValueError(
            f"data.batch_size={batch_size} is more than the {num_examples} training examples, so an epoch would hold "
            f"no full batch: give data.batch_size={max(num_examples // world_size * world_size, world_size)} or less"
        )


def steps(
    num_examples: int, batch_size: int, seed: int, start_step: int, rank: int = 0, world_size: int = 1
) -> Iterator[Step]:
    """This process's share of every global batch from `start_step` on, for ever.

    `batch_size` is the size of the global batch, over all processes: k processes see together what one would see.
    The incomplete batch at the end of an epoch is dropped; another order drops other examples.

    Raises:
        ValueError: when the batch is larger than the data or not divisible by the number of processes.
    """
    check_batch(num_examples, batch_size, world_size)
    per_epoch, share = num_examples // batch_size, batch_size // world_size
    epoch, position = divmod(start_step, per_epoch)
    while True:
        order = epoch_order(num_examples, seed, epoch)
        for start in range(position * batch_size, per_epoch * batch_size, batch_size):
            mine = start + rank * share
            yield Step(epoch, order[mine : mine + share])
        epoch, position = epoch + 1, 0
