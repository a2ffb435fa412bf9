import math

import pytest
import torch
from sklearn.calibration import calibration_curve

from ssl_zoo.evaluators.calibration import Calibration, calibration_error, fit_temperature
from ssl_zoo.evaluators.linear import Linear
from tests.evaluators.fakes import FakeData, blobs, judge


def calibrated(count: int, scale: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits, multiplied by `scale`, and labels that are drawn with the probabilities of the logits before that."""
    generator = torch.Generator().manual_seed(0)
    logits = 1.5 * torch.randn(count, 4, generator=generator)
    return scale * logits, torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]


def test_the_error_is_the_weighted_gap_of_each_bin() -> None:
    logits, labels = calibrated(500, 2.0)
    confidence, predicted = logits.double().softmax(1).max(1)
    hits = (predicted == labels).numpy()
    total = 0.0
    for low in range(15):
        inside = (confidence > low / 15) & (confidence <= (low + 1) / 15)
        if inside.any():
            total += inside.sum().item() / 500 * abs(hits[inside].mean() - confidence[inside].mean().item())
    assert calibration_error(logits, labels, 15) == pytest.approx(total)
    true, mean = calibration_curve(hits, confidence.numpy(), n_bins=1)
    assert calibration_error(logits, labels, 1) == pytest.approx(abs(true[0] - mean[0]))


def test_calibrated_probabilities_have_a_small_error_and_extremes_are_known() -> None:
    assert calibration_error(*calibrated(20_000), 15) < 0.015
    sure = torch.tensor([[100.0, 0.0]]).repeat(4, 1)
    assert calibration_error(sure, torch.tensor([0, 0, 0, 0]), 15) == pytest.approx(0)
    assert calibration_error(sure, torch.tensor([0, 1, -1, -1]), 15) == pytest.approx(0.75)


@pytest.mark.parametrize("scale", [0.5, 1.0, 3.0])
def test_the_temperature_undoes_the_scale_of_logits(scale: float) -> None:
    logits, labels = calibrated(20_000, scale)
    temperature = fit_temperature(logits, labels)
    assert temperature == pytest.approx(scale, rel=0.03)
    around = [torch.nn.functional.cross_entropy(logits / t, labels) for t in (0.98 * temperature, 1.02 * temperature)]
    assert torch.nn.functional.cross_entropy(logits / temperature, labels) <= min(around)


def test_an_overconfident_probe_is_scaled_and_test_labels_do_not_matter_for_it() -> None:
    (x, y), (z, truth) = blobs(200, 20, 4, 0.25), blobs(300, 20, 4, 0.25, seed=1)
    settings = (15, 0.3, Linear([1e-4], 0.2))  # hardly penalised, so overconfident
    found = Calibration(*settings)(judge(FakeData((x, y), (z, truth))))
    assert found["calibration_scaled/temperature"] > 1.5
    assert found["calibration_scaled/error"] < found["calibration/error"]
    assert found["calibration_scaled/loss"] < found["calibration/loss"]
    other = Calibration(*settings)(judge(FakeData((x, y), (z, truth.roll(1)))))
    assert other["calibration_scaled/temperature"] == found["calibration_scaled/temperature"]
    assert Calibration(*settings)(judge(FakeData((x, y), (z, truth)), "init")) == {}


def test_a_class_that_was_never_trained_on_counts_as_wrong() -> None:
    (x, y), (z, truth) = blobs(60, 8, 3, 3), blobs(60, 8, 3, 3, seed=1)
    known = y < 2
    found = Calibration(15, 0.2, Linear([1e-2], 0.2))(judge(FakeData((x[known], y[known]), (z, truth))))
    assert 0.2 < found["calibration/error"] < 0.5
    assert math.isfinite(found["calibration/loss"])


def test_settings_outside_their_range_are_refused() -> None:
    with pytest.raises(ValueError, match=r"calibration\.bins=0"):
        Calibration(0, 0.2, Linear([1e-2], 0.2))
    with pytest.raises(ValueError, match=r"calibration\.validation=1"):
        Calibration(15, 1, Linear([1e-2], 0.2))
