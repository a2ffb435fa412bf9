"""Ops on token ids."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_zoo.views.keyed_random import KeyedRandom
from ssl_zoo.views.op import Op, Params, check_count


class Windows(Op):
    """A random window of `length` tokens of each document: the random crop of text.

    Takes (B, L) int64 documents, padded at the end with `pad_id`, and gives (B, length). A document shorter than
    `length` is kept whole and padded.
    """

    def __init__(self, length: int, pad_id: int = 0):
        self.length = check_count(self, "length", length)
        self.pad_id = pad_id

    def sample(self, random: KeyedRandom, x: Tensor) -> Params:
        """Where each window starts, (B,) int64."""
        starts = ((x != self.pad_id).sum(1) - self.length).clamp(min=0) + 1
        return ((random.uniform(1).squeeze(1) * starts).long(),)

    def apply(self, x: Tensor, params: Params) -> Tensor:
        """Cuts the windows."""
        (start,) = params
        x = F.pad(x, (0, self.length), value=self.pad_id)
        return x.gather(1, start[:, None] + torch.arange(self.length, device=x.device))
