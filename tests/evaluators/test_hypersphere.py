import math
from itertools import combinations

import pytest
import torch

from ssl_zoo.evaluators.hypersphere import alignment, uniformity


def test_both_are_the_means_over_pairs() -> None:
    z = torch.randn(7, 4, 3, generator=torch.Generator().manual_seed(0))
    unit = z / z.norm(dim=2, keepdim=True)
    pairs = [(unit[i, a] - unit[i, b]).square().sum().item() for i in range(7) for a, b in combinations(range(4), 2)]
    assert alignment(z) == pytest.approx(sum(pairs) / len(pairs), rel=1e-5)
    x = unit[:, 0]
    kernel = [math.exp(-2 * (x[i] - x[j]).square().sum().item()) for i, j in combinations(range(7), 2)]
    assert uniformity(z[:, 0]) == pytest.approx(math.log(sum(kernel) / len(kernel)), rel=1e-5)


def test_extreme_values_are_known() -> None:
    x = torch.randn(50, 1, 8, generator=torch.Generator().manual_seed(0))
    assert alignment(x.expand(-1, 3, -1)) == pytest.approx(0, abs=1e-6)
    assert alignment(torch.cat([x, -x], dim=1)) == pytest.approx(4, abs=1e-5)
    assert uniformity(torch.ones(9, 4)) == pytest.approx(0, abs=1e-5)
    assert uniformity(torch.tensor([[1.0], [-1.0]])) == pytest.approx(-8)
    assert uniformity(5 * x[:, 0]) == pytest.approx(uniformity(x[:, 0]), rel=1e-5)


def test_uniform_points_on_the_sphere_have_the_known_potential() -> None:
    """In three dimensions the squared distance of two uniform points is uniform on [0, 4]."""
    x = torch.randn(2000, 3, generator=torch.Generator().manual_seed(0))
    assert uniformity(x) == pytest.approx(math.log((1 - math.exp(-8)) / 8), abs=0.02)
