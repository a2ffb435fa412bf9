import math

import numpy as np
import pytest
import torch

from ssl_zoo.evaluators.alpha_req import alpha_req


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("shape", [(300, 20), (20, 300)])
def test_exponent_of_a_known_spectrum(alpha: float, shape: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    rank = 19
    left = torch.linalg.qr(torch.cat([torch.ones(shape[0], 1), torch.randn(shape[0], rank, generator=generator)], 1)).Q
    right = torch.linalg.qr(torch.randn(shape[1], rank, generator=generator)).Q
    deviations = torch.arange(1, rank + 1) ** (-alpha / 2)
    x = left[:, 1:] * deviations @ right.T  # the columns of `left` have mean 0
    assert alpha_req(x + 3) == pytest.approx(alpha, abs=1e-3)


def test_slope_is_numpys() -> None:
    x = torch.randn(200, 12, generator=torch.Generator().manual_seed(0)) * torch.logspace(0, -1, 12)
    values = np.sort(np.linalg.eigvalsh(np.cov(x.double().numpy().T)))[::-1]
    slope = np.polyfit(np.log(np.arange(1, 13)), np.log(values), 1)[0]
    assert alpha_req(x) == pytest.approx(-slope, rel=1e-6)
    assert alpha_req(100 * x) == pytest.approx(-slope, rel=1e-4)


@pytest.mark.parametrize("x", [torch.ones(5, 3), torch.zeros(5, 3), torch.arange(5.0)[:, None]])
def test_a_single_direction_has_no_slope(x: torch.Tensor) -> None:
    assert math.isnan(alpha_req(x))
