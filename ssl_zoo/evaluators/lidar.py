"""LiDAR: the effective rank of what distinguishes examples, relative to what varies between views of one example.

Thilak et al., "LiDAR: Sensing Linear Probing Performance in Joint Embedding SSL Architectures", ICLR 2024,
https://arxiv.org/abs/2312.04000, Section 4. Each example is a class of its own, and its views are the class's members:
the rank of linear discriminant analysis. Unlike RankMe it does not count directions of noise. Letters: n examples, q
views, D width.
"""

import math

import torch
from torch import Tensor

DELTA = 1e-4
"""Added to the diagonal of the covariance within classes, as in the paper."""
EPSILON = 1e-7
"""Added to the shares of the eigenvalues."""


def lidar(z: Tensor) -> float:
    """The rank of features z (n, q, D) of q > 1 views of n > 1 examples, in [1, min(n - 1, D)] up to `EPSILON`."""
    n, q, width = z.shape
    z = z.double()
    means = z.mean(dim=1)
    between = means - means.mean(dim=0)
    within = (z - means[:, None]).flatten(0, 1)
    eye = torch.eye(width).to(z)
    factor = torch.linalg.cholesky(within.T @ within / (n * (q - 1)) + DELTA * eye)
    # L^-1 S_b L^-T has the eigenvalues of S_w^-1/2 S_b S_w^-1/2, with L L^T = S_w.
    whitened = torch.linalg.solve_triangular(factor, between.T, upper=False)  # (D, n)
    values = torch.linalg.eigvalsh(whitened @ whitened.T / (n - 1)).clamp(min=0)
    shares = values / values.sum().clamp(min=torch.finfo(values.dtype).tiny) + EPSILON
    return math.exp(-(shares * shares.log()).sum().item())
