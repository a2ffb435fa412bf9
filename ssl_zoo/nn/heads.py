"""The small networks that methods put on a backbone."""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def mlp(*dims: int, hidden_norm: bool = True, last_norm: bool = False) -> nn.Sequential:
    """Projector or predictor: Linear-BatchNorm-ReLU for every layer but the last, which is a bare Linear.

    dims: widths from input to output, at least two. `hidden_norm=False` leaves out the BatchNorm of the hidden layers,
    `last_norm` adds one after the last layer. A Linear that a BatchNorm follows has no bias, since the norm would take
    it away.
    """
    layers: list[nn.Module] = []
    for width, out in pairwise(dims[:-1]):
        norm = [nn.BatchNorm1d(out)] if hidden_norm else []
        layers += [nn.Linear(width, out, bias=not hidden_norm), *norm, nn.ReLU(inplace=True)]
    layers.append(nn.Linear(dims[-2], dims[-1], bias=not last_norm))
    if last_norm:
        layers.append(nn.BatchNorm1d(dims[-1]))
    return nn.Sequential(*layers)


class Prototypes(nn.Module):
    """Cosine similarity with K learned vectors: a linear layer without bias, weight-normalised with all norms at 1.

    In float32 under autocast too: methods divide the similarities by temperatures as low as 0.04.
    """

    def __init__(self, dim: int, num_prototypes: int):
        super().__init__()
        self.weight = nn.Parameter(F.normalize(torch.randn(num_prototypes, dim), dim=1))

    def forward(self, z: Tensor, frozen: bool = False) -> Tensor:
        """(..., D) of any length -> (..., K) float32 in [-1, 1].

        `frozen`: the prototypes' gradient is zero, not absent, as DistributedDataParallel wants it. An optimizer's
        weight decay still shortens the vectors then, but only their directions count.
        """
        with torch.autocast(device_type=z.device.type, enabled=False):
            weight = F.normalize(self.weight, dim=1)
            if frozen:
                weight = weight.detach() + 0 * weight
            return F.normalize(z.float(), dim=-1) @ weight.T


class DINOHead(nn.Module):
    """Three-layer GELU MLP without BatchNorm, L2 norm, prototypes: (..., in_dim) -> (..., K) float32 in [-1, 1].

    Caron et al., "DINO", 2021, https://arxiv.org/abs/2104.14294, Appendix C; `out_dim` is the width of its bottleneck.
    """

    def __init__(self, in_dim: int, hidden_dim: int, out_dim: int, num_prototypes: int):
        super().__init__()
        widths = (in_dim, hidden_dim, hidden_dim, out_dim)
        linears = [nn.Linear(width, out) for width, out in pairwise(widths)]
        for linear in linears:
            nn.init.trunc_normal_(linear.weight, std=0.02)
            nn.init.zeros_(linear.bias)
        self.mlp = nn.Sequential(linears[0], nn.GELU(), linears[1], nn.GELU(), linears[2])
        self.prototypes = Prototypes(out_dim, num_prototypes)

    def forward(self, x: Tensor, frozen: bool = False) -> Tensor:
        """`frozen`: see `Prototypes`."""
        return self.prototypes(self.mlp(x), frozen)
