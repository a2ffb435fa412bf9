"""Alignment and uniformity: how near views of one example are on the unit sphere, and how evenly examples cover it.

Wang, Isola, "Understanding Contrastive Representation Learning through Alignment and Uniformity on the Hypersphere",
ICML 2020, https://arxiv.org/abs/2005.10242, Section 4.1, with their exponents alpha = 2 and t = 2. Both are losses:
lower is better, and either alone is trivial to have. Letters: n examples, q views, D width.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def alignment(z: Tensor) -> float:
    """Mean squared distance between two views of an example, of features z (n, q, D), q > 1: from 0 to 4."""
    z = F.normalize(z, dim=2)
    q = z.shape[1]
    # The mean over pairs of |a - b|^2 is 2 q / (q - 1) times the mean squared distance from the centre.
    return 2 * q / (q - 1) * (z - z.mean(dim=1, keepdim=True)).square().sum(dim=2).mean().item()


def uniformity(z: Tensor) -> float:
    """Log of the mean of exp(-2 |a - b|^2) over pairs of n > 1 different examples, of features z (n, D): at most 0."""
    squared = torch.pdist(F.normalize(z, dim=1)).square()
    return (-2 * squared).logsumexp(dim=0).item() - math.log(len(squared))
