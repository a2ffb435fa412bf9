import warnings

import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from ssl_zoo.evaluators.linear import Linear, Probe, fit_probe, standardize_features
from tests.evaluators.fakes import FakeData, blobs, judge

GRID = [1e-1, 1e-2, 1e-3, 1e-4, 1e-5]


def objective(probe: Probe, x: Tensor, y: Tensor, l2: float) -> float:
    """What `fit_probe` minimises, in float64. Labels are 0 .. C - 1."""
    logits = F.linear(x.double(), probe.weight.double(), probe.bias.double())
    return (F.cross_entropy(logits, y) + l2 / 2 * probe.weight.double().square().sum()).item()


def oracle(x: Tensor, y: Tensor, l2: float) -> Probe:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = LogisticRegression(C=1 / (l2 * len(x)), max_iter=3000, tol=1e-7).fit(x.double().numpy(), y.numpy())
    return Probe(torch.tensor(found.coef_), torch.tensor(found.intercept_), torch.tensor(found.classes_))


def skewed(count: int, width: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Correlated features with variances that span four orders of magnitude, as trained encoders have."""
    x, y = blobs(count, width, 5, 0.25, seed)
    mix = torch.randn(width, width, generator=torch.Generator().manual_seed(5)) / width**0.5
    return (x * torch.logspace(0, -2, width)) @ mix, y


@pytest.mark.parametrize("l2", [1e-1, 1e-3, 1e-5])
def test_minimum_is_scikit_learns(l2: float) -> None:
    x, y = skewed(600, 24)
    (x,) = standardize_features(x)
    ours, theirs = fit_probe(x, y, l2), oracle(x, y, l2)
    assert objective(ours, x, y, l2) == pytest.approx(objective(theirs, x, y, l2), abs=1e-5)
    agree = (F.linear(x, ours.weight).argmax(1) == F.linear(x.double(), theirs.weight).argmax(1)).float().mean()
    assert agree > 0.97


def test_minimum_with_fewer_examples_than_features_and_a_mean_that_is_not_zero() -> None:
    x, y = blobs(20, 50, 5, 0.5)
    x = x + 3
    assert objective(fit_probe(x, y, 1e-2), x, y, 1e-2) == pytest.approx(
        objective(oracle(x, y, 1e-2), x, y, 1e-2), abs=1e-5
    )


def test_minimum_with_dead_and_repeated_features() -> None:
    """As a ResNet ends: many zeros, few directions. The covariance has the eigenvalue 0 hundreds of times."""
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(100, 20, generator=generator) @ torch.randn(20, 400, generator=generator)
    (x,) = standardize_features((hidden - 9 * torch.rand(400, generator=generator)).relu().repeat(1, 2))
    assert (x == 0).all(dim=0).sum() > 10
    y = torch.arange(100) % 10
    assert objective(fit_probe(x, y, 1e-2), x, y, 1e-2) == pytest.approx(
        objective(oracle(x, y, 1e-2), x, y, 1e-2), abs=1e-5
    )


def test_the_gradient_vanishes_at_the_minimum() -> None:
    x, y = skewed(600, 24)
    (x,) = standardize_features(x)
    probe = fit_probe(x, y, 1e-3)
    weight, bias = probe.weight.double().requires_grad_(), probe.bias.double().requires_grad_()
    (F.cross_entropy(F.linear(x.double(), weight, bias), y) + 0.5e-3 * weight.square().sum()).backward()
    assert weight.grad is not None
    assert bias.grad is not None
    assert max(weight.grad.abs().max(), bias.grad.abs().max()) < 1e-4


def test_where_a_fit_starts_does_not_matter() -> None:
    x, y = skewed(600, 24)
    (x,) = standardize_features(x)
    warm, cold = fit_probe(x, y, 1e-3, start=fit_probe(x, y, 1.0)), fit_probe(x, y, 1e-3)
    assert objective(warm, x, y, 1e-3) == pytest.approx(objective(cold, x, y, 1e-3), abs=1e-6)


def test_a_very_strong_penalty_leaves_the_class_frequencies() -> None:
    x, y = blobs(90, 4, 3, 1.0)
    y = torch.where(y == 2, 0, y)  # two thirds and one third
    probe = fit_probe(x, y, 1e6)
    assert torch.allclose(F.linear(x, probe.weight, probe.bias).softmax(1), torch.tensor([2 / 3, 1 / 3]), atol=1e-3)


def test_labels_need_not_be_consecutive() -> None:
    x, y = blobs(90, 8, 3, 3.0)
    labels = torch.tensor([7, 2, 40])[y]
    probe = fit_probe(x, labels, 1e-3)
    assert probe.classes.tolist() == [2, 7, 40]
    assert probe.accuracy(x, labels) == 1.0


def test_standardise() -> None:
    x = torch.randn(500, 4) * torch.tensor([1.0, 100.0, 1e-3, 0.0]) + torch.tensor([0.0, 5.0, 1.0, 3.0])
    train, other = standardize_features(x, torch.full((2, 4), 1e9))
    assert torch.allclose(train.mean(0), torch.zeros(4), atol=1e-3)
    assert torch.allclose(train.std(0, correction=0), torch.tensor([1.0, 1, 1, 0]), atol=1e-3)
    assert other[:, 3].tolist() == [0, 0]
    assert other.isfinite().all()


def test_probe_on_features_reports_accuracy_and_penalty() -> None:
    data = FakeData(blobs(400, 8, 4, 1.0), blobs(200, 8, 4, 1.0, seed=1))
    found = Linear(GRID, 0.2)(judge(data))
    assert found.keys() == {"linear/top1", "linear/l2"}
    assert found["linear/l2"] in GRID
    assert 0.85 < found["linear/top1"] <= 1


def test_the_test_part_chooses_nothing() -> None:
    train, test = blobs(300, 20, 4, 0.4), blobs(100, 20, 4, 0.4, seed=1)
    honest = Linear(GRID, 0.2)(judge(FakeData(train, test)))
    garbage = Linear(GRID, 0.2)(judge(FakeData(train, (test[0] * 100, test[1].flip(0)))))
    assert honest["linear/l2"] == garbage["linear/l2"]
    assert honest["linear/top1"] != garbage["linear/top1"]


def test_the_penalty_that_generalises_is_chosen() -> None:
    x, y = blobs(120, 100, 2, 0.12)  # more noise than signal: weak penalties learn the noise by heart
    l2, _ = Linear([10.0, 1.0, 1e-6], 0.3).choose(x, y)
    assert l2 > 1e-6
    x, y = skewed(3000, 24)
    l2, _ = Linear([10.0, 1e-4], 0.3).choose(*standardize_features(x), y)
    assert l2 == 1e-4


def test_the_same_numbers_every_time() -> None:
    data = FakeData(blobs(200, 8, 4, 0.5), blobs(100, 8, 4, 0.5, seed=1))
    first = Linear(GRID, 0.2)(judge(data))
    torch.manual_seed(123)
    assert Linear(GRID, 0.2)(judge(data)) == first


def test_separable_features_give_a_finite_probe() -> None:
    x, y = blobs(200, 16, 4, 20.0)
    l2, probe = Linear(GRID, 0.2).choose(x, y)
    assert l2 == GRID[0]
    assert probe.weight.isfinite().all()
    assert fit_probe(x, y, 1e-6).weight.isfinite().all()


def test_constant_features_give_the_largest_class() -> None:
    y = torch.tensor([0, 1, 1, 1] * 10)
    found = Linear(GRID, 0.2)(judge(FakeData((torch.ones(40, 6), y), (torch.ones(40, 6), y))))
    assert found["linear/top1"] == 0.75


@pytest.mark.parametrize("rare", range(5))  # wherever the split puts it
def test_a_class_seen_once_may_be_missing_on_either_side_of_the_split(rare: int) -> None:
    x, y = blobs(12, 6, 2, 2.0)
    y[rare] = 2
    found = Linear(GRID, 0.25)(judge(FakeData((x, y), (x, y))))
    assert 0.5 < found["linear/top1"] <= 1


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"l2": []}, r"linear.l2=\[\]"),
        ({"l2": [0.0, 1.0]}, r"linear.l2=\[0.0, 1.0\]"),
        ({"validation": 0}, "linear.validation=0 must lie between"),
        ({"validation": 1.0}, "linear.validation=1.0"),
    ],
)
def test_bad_settings_name_key_and_value(settings: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Linear(**({"l2": GRID, "validation": 0.2} | settings))
