"""What methods remember between steps."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_zoo.functional import all_gather, similarities


class Queue(nn.Module):
    """The last `size` vectors of all processes, oldest overwritten first; a buffer, so checkpoints carry it.

    It starts with random unit vectors, as MoCo's does. `keys`: (size, D) float32.
    """

    keys: Tensor
    position: Tensor

    def __init__(self, size: int, dim: int):
        super().__init__()
        self.register_buffer("keys", F.normalize(torch.randn(size, dim), dim=1))
        self.register_buffer("position", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def nearest(self, z: Tensor, count: int) -> Tensor:
        """The `count` keys of largest dot product with each row of z, best first: (B, D) -> (B, count, D)."""
        return self.keys[similarities(z, self.keys).topk(count, dim=1).indices]

    @torch.no_grad()
    def push(self, x: Tensor) -> None:
        """Adds x (B, D) of every process, in rank order; for a training `forward`, after `keys` was used."""
        x = all_gather(x.detach().float())[-len(self.keys) :]
        where = (self.position + torch.arange(len(x), device=x.device)) % len(self.keys)
        # A new tensor: the loss of this step may still need the old keys for its backward pass.
        self.keys = self.keys.index_copy(0, where, x)
        self.position = (self.position + len(x)) % len(self.keys)
