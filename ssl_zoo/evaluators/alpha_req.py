"""Alpha-ReQ: how fast the variances of the features decay, as the exponent of a power law.

Agrawal, Mondal, Ghosh, Richards, "Alpha-ReQ: Assessing Representation Quality in Self-Supervised Learning by Measuring
Eigenspectrum Decay", NeurIPS 2022. The eigenvalues of the features' covariance, the largest first, are modelled as
proportional to j^(-alpha); the authors find good features near 1, below which the spectrum is flat as that of noise,
and above which few directions hold everything. Here alpha is the least-squares slope over all eigenvalues that float32
features determine.
"""

import torch
from torch import Tensor


def alpha_req(x: Tensor) -> float:
    """The exponent of features x (N, D), N > 1: minus the slope of log eigenvalue over log rank.

    Returns:
        NaN for fewer than two eigenvalues above 1e-10 of the largest.
    """
    x = x.double() - x.double().mean(dim=0)
    gram = x.T @ x if x.shape[1] <= x.shape[0] else x @ x.T
    values = torch.linalg.eigvalsh(gram).flip(0)
    values = values[values > 1e-10 * values[0].clamp(min=torch.finfo(values.dtype).tiny)]
    if len(values) < 2:
        return float("nan")
    ranks = torch.arange(1, len(values) + 1).to(values).log()
    ranks = ranks - ranks.mean()
    return -((ranks @ values.log()) / ranks.square().sum()).item()
