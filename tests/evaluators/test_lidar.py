import math

import numpy as np
import pytest
import torch
from scipy.linalg import fractional_matrix_power

from ssl_zoo.evaluators.lidar import lidar


def naive(z: np.ndarray) -> float:
    """Equations 1 to 4 of the paper, in loops."""
    n, q, width = z.shape
    means = [sum(z[i, j] for j in range(q)) / q for i in range(n)]
    centre = sum(means) / n
    between, within = np.zeros((width, width)), np.zeros((width, width))
    for i in range(n):
        between += np.outer(means[i] - centre, means[i] - centre) / (n - 1)
        for j in range(q):
            within += np.outer(z[i, j] - means[i], z[i, j] - means[i]) / (n * (q - 1))
    root = fractional_matrix_power(within + 1e-4 * np.eye(width), -0.5)
    values = np.clip(np.linalg.eigvalsh(root @ between @ root), 0, None)
    shares = values / values.sum() + 1e-7
    return float(np.exp(-sum(share * np.log(share) for share in shares)))


@pytest.mark.parametrize("size", [(40, 3, 6), (5, 4, 9)])
def test_it_is_the_formula(size: tuple[int, int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    means = torch.randn(size[0], 1, size[2], generator=generator) * torch.logspace(0, -1, size[2])
    z = means + 0.3 * torch.randn(size, generator=generator)
    assert lidar(z) == pytest.approx(naive(z.double().numpy()), rel=1e-6)


def test_noise_between_views_is_not_counted_and_informative_directions_are() -> None:
    generator = torch.Generator().manual_seed(0)
    z = 0.1 * torch.randn(400, 8, 10, generator=generator)
    z[..., :3] += torch.randn(400, 1, 3, generator=generator)
    assert lidar(z) == pytest.approx(3, abs=0.2)
    loud = z.clone()
    loud[..., 3:] *= 100  # RankMe would count these directions
    assert lidar(loud) == pytest.approx(3, abs=0.2)


def test_equal_features_and_equal_views_are_no_error() -> None:
    assert lidar(torch.ones(4, 2, 3)) == pytest.approx(1, abs=1e-4)
    x = torch.randn(200, 1, 4, generator=torch.Generator().manual_seed(0)).expand(-1, 3, -1)
    assert lidar(x) == pytest.approx(4, rel=0.05)
    assert math.isfinite(lidar(torch.full((3, 2, 2), 1e6)))
