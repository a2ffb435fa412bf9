"""Random numbers that are looked up by key instead of being generated in sequence."""

import math

import torch
from torch import Tensor

SampledRows = Tensor | slice
"""Which examples of a batch: (n,) int64 positions, or a slice."""


def _splitmix64(state: Tensor, number: Tensor | int) -> Tensor:
    """Output `number` of the generator seeded with `state` (Steele, Lea, Flood, OOPSLA 2014), as int64 bit patterns."""
    step = -0x61C8864680B583EB  # 2**64 over the golden ratio; this and the factors below are two's complement
    if isinstance(number, int):
        offset: Tensor | int = ((number + 1) * step + 2**63) % 2**64 - 2**63
    else:
        offset = (number + 1) * step
    bits = state + offset
    # int64 shifts copy the sign bit; the masks make them the logical shifts the generator is defined with.
    bits = (bits ^ ((bits >> 30) & 0x3FFFFFFFF)) * -0x40A7B892E31B1A47
    bits = (bits ^ ((bits >> 27) & 0x1FFFFFFFFF)) * -0x6B2FB644ECCEEE15
    return bits ^ ((bits >> 31) & 0x1FFFFFFFF)


class Draws:
    """The random numbers of B examples for one view: a pure function of (seed, epoch, index, view, position, number).

    They depend on no worker, rank, device, batch or earlier draw, so an interrupted run continues bit for bit. Each op
    reads the stream of its position in the pipeline (`at`). Asking twice gives the same numbers twice.
    """

    def __init__(self, seed: int, epoch: Tensor | int, indices: Tensor, view: Tensor | int):
        """indices: (B,) int64 positions in the data set; epoch, view: one for all or (B,) int64, on the same device."""
        self.key = torch.zeros_like(indices)
        for number in (seed, epoch, indices, view):
            self.key = _splitmix64(self.key, number)

    def _keyed(self, key: Tensor) -> "Draws":
        other = object.__new__(Draws)
        other.key = key
        return other

    def at(self, position: int) -> "Draws":
        """The stream of the op at this position of the pipeline."""
        return self._keyed(_splitmix64(self.key, position))

    def __getitem__(self, rows: SampledRows) -> "Draws":
        """The same streams for some of the examples."""
        return self._keyed(self.key[rows])

    def _numbers(self, first: int, n: int) -> Tensor:
        bits = _splitmix64(self.key[:, None], torch.arange(first, first + n, device=self.key.device))
        return ((bits >> 40) & 0xFFFFFF).float() * 2**-24  # the upper 24 bits: what a float32 in [0, 1) resolves

    def chance(self) -> Tensor:
        """(B,) float32 uniforms in [0, 1), by which an op decides whom to change."""
        return self._numbers(0, 1).squeeze(1)

    def uniform(self, n: int) -> Tensor:
        """(B, n) float32 uniforms in [0, 1), independent of `chance`."""
        return self._numbers(1, n)

    def normal(self, n: int) -> Tensor:
        """(B, n) float32 standard normals, made of the numbers of `uniform`; none is beyond 5.5."""
        return torch.erfinv(self.uniform(n) * 2 - (1 - 2**-24)) * math.sqrt(2)
