import math

import pytest
import torch

from ssl_zoo.evaluators.clid import intrinsic_dimension, learnability


def points(count: int, dim: int, width: int) -> torch.Tensor:
    """Points that are uniform in a cube of `dim` dimensions, embedded in `width`."""
    generator = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.randn(width, dim, generator=generator)).Q
    return torch.rand(count, dim, generator=generator) @ basis.T


@pytest.mark.parametrize("dim", [1, 2, 4])
def test_the_dimension_of_a_cube_is_found_in_a_larger_space(dim: int) -> None:
    assert intrinsic_dimension(points(1500, dim, 10)) == pytest.approx(dim, rel=0.12)


def test_the_estimate_is_the_formula() -> None:
    x = points(60, 3, 5).double()
    logs = 0.0
    for i in range(60):
        first, second = sorted((x[i] - x[j]).norm().item() for j in range(60) if j != i)[:2]
        logs += math.log(second / first)
    assert intrinsic_dimension(x) == pytest.approx(59 / logs, rel=1e-9)
    assert intrinsic_dimension(torch.cat([x, x])) == pytest.approx(59 / logs, rel=1e-9), "copies are left out"


@pytest.mark.parametrize("x", [torch.ones(9, 3), torch.eye(5)])
def test_points_without_a_dimension_give_nan(x: torch.Tensor) -> None:
    assert math.isnan(intrinsic_dimension(x))  # in a simplex all distances are equal


def test_separate_clusters_can_be_learned_and_k_means_of_noise_less_so() -> None:
    generator = torch.Generator().manual_seed(0)
    centres = 20 * torch.randn(5, 4, generator=generator)
    x = (centres.repeat(40, 1) + torch.randn(200, 4, generator=generator))[torch.randperm(200, generator=generator)]
    assert learnability(x, clusters=5, k=3) == 1
    noise = torch.randn(200, 30, generator=generator)
    assert learnability(noise, clusters=20, k=3) < 0.6


def test_equal_points_are_one_cluster() -> None:
    with pytest.warns(match="distinct clusters"):
        assert learnability(torch.ones(10, 3), clusters=2, k=2) == 1
