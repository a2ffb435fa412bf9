"""A queue of embeddings from past steps."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_zoo.distributed import all_gather
from ssl_zoo.functional import similarities


class Queue(nn.Module):
    """First-in first-out queue of the last `size` vectors of all processes, stored in buffers and so in checkpoints.

    It is initialised with random unit vectors, as MoCo's is.

    Attributes:
        keys: (size, D) float32.
        indices: (size,) int64, the position in the data set of the example of each key; -1 for the initial vectors.
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
        """The `count` keys with the largest dot product with each row of z (B, D), best first: (B, count, D)."""
        return self.keys[similarities(z, self.keys).topk(count, dim=1).indices]

    def same_example(self, indices: Tensor) -> Tensor:
        """(B, size) bool, True where a key comes from the same example as a query.

        Such a key must not serve as a negative. The queue holds some if it is longer than an epoch, and always around
        the boundary of two epochs, because their orders differ.

        Args:
            indices: (B,) int64, the position in the data set of the example of each query.
        """
        return indices[:, None] == self.indices

    @torch.no_grad()
    def push(self, x: Tensor, indices: Tensor) -> None:
        """Adds the vectors of all processes in rank order; call it in `forward` during training, after using `keys`.

        Args:
            x: (B, D) vectors of this process.
            indices: (B,) int64, the position in the data set of the example of each vector.
        """
        x = all_gather(x.detach().float())[-len(self.keys) :]
        indices = all_gather(indices)[-len(self.keys) :]
        where = (self.position + torch.arange(len(x), device=x.device)) % len(self.keys)
        # Out of place: the backward pass of this step may still need the old keys.
        self.keys = self.keys.index_copy(0, where, x)
        self.indices = self.indices.index_copy(0, where, indices)
        self.position = (self.position + len(x)) % len(self.keys)
