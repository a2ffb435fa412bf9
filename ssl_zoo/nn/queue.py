"""What methods remember between steps."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_zoo.distributed import all_gather
from ssl_zoo.functional import similarities


class Queue(nn.Module):
    """The last `size` vectors of all processes, oldest overwritten first; a buffer, so checkpoints carry it.

    It starts with random unit vectors, as MoCo's does.
    keys: (size, D) float32.
    indices: (size,) int64, which example of the data set each key is of; -1 for the random ones at the start.
    """

    keys: Tensor
    indices: Tensor
    position: Tensor

    def __init__(self, size: int, dim: int):
        super().__init__()
        self.register_buffer("keys", F.normalize(torch.randn(size, dim), dim=1))
        self.register_buffer("indices", torch.full((size,), -1))
        self.register_buffer("position", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def nearest(self, z: Tensor, count: int) -> Tensor:
        """The `count` keys of largest dot product with each row of z, best first: (B, D) -> (B, count, D)."""
        return self.keys[similarities(z, self.keys).topk(count, dim=1).indices]

    def same_example(self, indices: Tensor) -> Tensor:
        """(B,) int64 positions in the data set -> (B, size) bool: which keys are of the same example as each query.

        Such a key is no negative. The queue holds some as soon as it is longer than an epoch, and around the border of
        two epochs, whose orders differ, in any case.
        """
        return indices[:, None] == self.indices

    @torch.no_grad()
    def push(self, x: Tensor, indices: Tensor) -> None:
        """Adds x (B, D), of the examples `indices` (B,), of every process, in rank order; for a training `forward`,
        after `keys` was used."""
        x, indices = (all_gather(part)[-len(self.keys) :] for part in (x.detach().float(), indices))
        where = (self.position + torch.arange(len(x), device=x.device)) % len(self.keys)
        # A new tensor: the loss of this step may still need the old keys for its backward pass.
        self.keys = self.keys.index_copy(0, where, x)
        self.indices = self.indices.index_copy(0, where, indices)
        self.position = (self.position + len(x)) % len(self.keys)
