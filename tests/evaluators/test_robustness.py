from typing import Any

import pytest
import torch
from torch import nn

from ssl_zoo.evaluators.linear import Linear
from ssl_zoo.evaluators.robustness import Robustness
from tests.evaluators.fakes import FakeData, judge

SETTINGS: dict[str, Any] = {
    "corruptions": ["gaussian_noise", "brightness"], "severities": [1, 5], "examples": 30,
    "linear": Linear([1e-2], 0.2),
}  # fmt: skip


def pictures(**facts: Any) -> FakeData:
    """Three classes: which of three rows of the image is brighter, by an amount that noise of severity 5 covers."""
    parts = []
    for seed in (0, 1):
        x = 0.4 + 0.02 * torch.rand(60, 1, 8, 8, generator=torch.Generator().manual_seed(seed))
        y = torch.arange(60) % 3
        x[torch.arange(60), 0, y] += 0.03
        parts.append((2 * x - 1, y))
    return FakeData(*parts, **{"image_size": 8, "in_chans": 1, "mean": [0.5], "std": [0.5]} | facts)


def test_noise_costs_accuracy_and_the_mean_is_that_of_all() -> None:
    context = judge(pictures(), encoder=nn.Flatten())
    found = Robustness(**SETTINGS)(context)
    assert found["robustness/clean/top1"] == 1
    assert found["robustness/clean/top1"].n == 30  # type: ignore[attr-defined]
    assert found["robustness/gaussian_noise/top1"] < 0.9
    both = (found["robustness/gaussian_noise/top1"] + found["robustness/brightness/top1"]) / 2
    assert found["robustness/mean/top1"] == pytest.approx(both)


def test_it_is_measured_at_the_end_and_of_images_only(caplog: pytest.LogCaptureFixture) -> None:
    assert Robustness(**SETTINGS)(judge(pictures(), "init")) == {}
    assert Robustness(**SETTINGS)(judge(pictures(modality="text"))) == {}
    assert "robustness skipped" in caplog.text


@pytest.mark.parametrize(
    ("key", "value"),
    [("corruptions", ["fog"]), ("corruptions", []), ("severities", [0]), ("severities", []), ("examples", 0)],
)
def test_settings_outside_their_range_are_refused(key: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"evaluators\.robustness\.{key}"):
        Robustness(**SETTINGS | {key: value})
