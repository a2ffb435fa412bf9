"""The line is that of logistic regression, and the errors are counted as one would by hand."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from ssl_zoo.introduction import dots
from tests.introduction.test_figure import opened


def clouds(seed: int) -> dots.Clouds:
    return dots.make_clouds(torch.Generator().manual_seed(seed))


def naive_errors(given: dots.Clouds, line: Tensor) -> int:
    a, b, c = line.tolist()
    errors = 0
    for (x, y), colour in zip(given.x.tolist(), given.y.tolist(), strict=True):
        is_blue = a * x + b * y + c > 0
        errors += is_blue != (colour == 1)
    return errors


@pytest.mark.parametrize("seed", range(5))
def test_errors_fall_and_are_those_of_a_naive_count(seed: int) -> None:
    seen = clouds(seed)
    lines = dots.adjust(seen)
    assert lines.shape == (dots.NUM_STEPS + 1, 3)
    errors = [dots.count_errors(seen, line) for line in lines]
    assert errors == [naive_errors(seen, line) for line in lines]
    assert errors[-1] < errors[dots.SHOWN_STEPS[1]] < errors[0]
    assert errors[-1] > 0  # the clouds overlap: no line is right about every dot


def test_each_step_goes_downhill_towards_the_line_of_logistic_regression() -> None:
    seen = clouds(0)
    lines = dots.adjust(seen).double()
    signs = 2 * seen.y - 1
    losses = [torch.nn.functional.softplus(-signs * dots.sides(seen.x.double(), line)).mean().item() for line in lines]
    assert all(later < earlier for earlier, later in pairwise(losses))
    best = LogisticRegression(C=1e8).fit(seen.x.numpy(), seen.y.numpy())
    p = best.predict_proba(seen.x.numpy())[np.arange(len(seen.y)), seen.y.numpy()]
    assert losses[-1] - -np.log(p).mean() < 0.05 < losses[0] - -np.log(p).mean()


def test_clouds_are_around_their_centres() -> None:
    given = clouds(3)
    for colour, centre in enumerate(dots.CENTRES):
        members = given.x[given.y == colour]
        assert len(members) == dots.DOTS_PER_CLOUD
        # Four standard errors of a mean of 100.
        assert (members.mean(dim=0) - torch.tensor(centre)).abs().max() < 0.4


def test_the_figure_follows_the_seed() -> None:
    first, again, other = dots.draw_dots(0), dots.draw_dots(0), dots.draw_dots(1)
    assert first == again != other
    assert min(opened(first).size) > 500
