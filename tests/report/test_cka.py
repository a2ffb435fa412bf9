"""CKA agrees with Song's formula as it is printed, has its invariances, and is about 0 for unrelated features."""

import numpy as np
import pytest

from ssl_zoo.report.cka import centred_gram, cka


def naive_hsic(k: np.ndarray, m: np.ndarray) -> float:
    """Song et al. (2012), Equation 4, with matrices whose diagonal is 0."""
    n, ones = len(k), np.ones(len(k))
    k, m = k - np.diag(np.diag(k)), m - np.diag(np.diag(m))
    first = np.trace(k @ m)
    second = (ones @ k @ ones) * (ones @ m @ ones) / ((n - 1) * (n - 2))
    third = 2 / (n - 2) * (ones @ k @ m @ ones)
    return float((first + second - third) / (n * (n - 3)))


def naive_cka(x: np.ndarray, y: np.ndarray) -> float:
    k, m = x @ x.T, y @ y.T
    return naive_hsic(k, m) / np.sqrt(naive_hsic(k, k) * naive_hsic(m, m))


def draw(n: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, width))


@pytest.mark.parametrize(("n", "widths"), [(4, (3, 2)), (30, (5, 8)), (50, (200, 20))])
def test_it_is_the_formula(n: int, widths: tuple[int, int]) -> None:
    x = draw(n, widths[0])
    y = x[:, :1] + draw(n, widths[1], seed=1) + 3.0
    assert cka(x, y) == pytest.approx(naive_cka(x, y), abs=1e-5)


def test_axes_scale_and_shift_do_not_matter() -> None:
    x = draw(60, 10)
    turned = np.linalg.qr(draw(10, 10, seed=2))[0]
    y = x @ draw(10, 7, seed=3)
    for changed in (x @ turned, 1e-4 * x, x + 100.0, np.pad(x, ((0, 0), (0, 5)))):
        assert cka(x, changed) == pytest.approx(1.0, abs=1e-5)
        assert cka(changed, y) == pytest.approx(cka(x, y), abs=1e-4)
    assert cka(x, x * np.geomspace(1, 100, 10)) < 0.8  # a linear map that is no rotation does


def test_unrelated_features_are_about_0_even_if_they_are_wide() -> None:
    n, width = 40, 300
    values = [cka(draw(n, width, seed=2 * seed), draw(n, width, seed=2 * seed + 1)) for seed in range(12)]
    assert abs(np.mean(values)) < 3 * np.std(values, ddof=1) / np.sqrt(12)
    assert np.abs(values).max() < 0.2
    x, y = (one - one.mean(axis=0) for one in (draw(n, width), draw(n, width, seed=1)))
    plain = np.sum((x.T @ y) ** 2) / np.sqrt(np.sum((x.T @ x) ** 2) * np.sum((y.T @ y) ** 2))
    assert plain > 0.8  # what the plain estimate says of the same


def test_extremes() -> None:
    assert np.isnan(cka(np.ones((9, 3)), draw(9, 3)))
    assert cka(1e30 * draw(9, 3), draw(9, 3)) == pytest.approx(1.0, abs=1e-5)
    with pytest.raises(ValueError, match="3 examples: CKA needs 4 or more"):
        centred_gram(draw(3, 2))
