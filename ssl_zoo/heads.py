"""The small networks that methods put on a backbone."""

from itertools import pairwise

from torch import nn


def mlp(*dims: int, last_norm: bool = False) -> nn.Sequential:
    """Projector or predictor: Linear-BatchNorm-ReLU for every layer but the last, which is a bare Linear.

    dims: widths from input to output, at least two. `last_norm` adds a BatchNorm after the last layer. A Linear that a
    BatchNorm follows has no bias, since the norm would take it away.
    """
    layers: list[nn.Module] = []
    for width, out in pairwise(dims[:-1]):
        layers += [nn.Linear(width, out, bias=False), nn.BatchNorm1d(out), nn.ReLU(inplace=True)]
    layers.append(nn.Linear(dims[-2], dims[-1], bias=not last_norm))
    if last_norm:
        layers.append(nn.BatchNorm1d(dims[-1]))
    return nn.Sequential(*layers)
