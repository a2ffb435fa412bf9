"""Random numbers that are computed from a key instead of being generated in sequence."""

import math

import torch
from torch import Tensor

BatchRows = Tensor | slice
"""Which examples of a batch: (n,) int64 positions, or a slice."""


def _splitmix64(state: Tensor, number: Tensor | int) -> Tensor:
    """Output `number` of a SplitMix64 generator (Steele, Lea, Flood, OOPSLA 2014), as int64 bit patterns.

    Args:
        state: (...) int64, the seed.
        number: position in the sequence, from 0.
    """
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


class KeyedRandom:
    """The random numbers of B examples for one view: a pure function of (seed, epoch, index, view, position, number).

    They do not depend on worker, rank, device, batch or earlier calls, so a resumed run continues bit for bit. Each op
    reads the stream of its position in the pipeline (`at`). Equal calls give equal numbers.
    """

    def __init__(self, seed: int, epoch: Tensor | int, indices: Tensor, view: Tensor | int):
        """Computes the key of each example.

        Args:
            seed: of the run.
            epoch: one for all, or (B,) int64.
            indices: (B,) int64, positions in the data set.
            view: one for all, or (B,) int64, on the same device.
        """
        self.key = torch.zeros_like(indices)
        for number in (seed, epoch, indices, view):
            self.key = _splitmix64(self.key, number)

    def _keyed(self, key: Tensor) -> "KeyedRandom":
        other = object.__new__(KeyedRandom)
        other.key = key
        return other

    def at(self, position: int) -> "KeyedRandom":
        """The stream of the op at this position of the pipeline."""
        return self._keyed(_splitmix64(self.key, position))

    def __getitem__(self, rows: BatchRows) -> "KeyedRandom":
        """The same streams for some of the examples."""
        return self._keyed(self.key[rows])

    def _numbers(self, first: int, n: int) -> Tensor:
        bits = _splitmix64(self.key[:, None], torch.arange(first, first + n, device=self.key.device))
        return ((bits >> 40) & 0xFFFFFF).float() * 2**-24  # the upper 24 bits: the resolution of float32 in [0, 1)

    def chance(self) -> Tensor:
        """(B,) float32 uniforms in [0, 1), by which an op decides which examples it changes."""
        return self._numbers(0, 1).squeeze(1)

    def uniform(self, n: int) -> Tensor:
        """(B, n) float32 uniforms in [0, 1), independent of `chance`."""
        return self._numbers(1, n)

    def normal(self, n: int) -> Tensor:
        """(B, n) float32 standard normals, computed from the numbers of `uniform`; all are within ±5.5."""
        return torch.erfinv(self.uniform(n) * 2 - (1 - 2**-24)) * math.sqrt(2)
