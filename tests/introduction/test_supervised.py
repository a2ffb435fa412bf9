"""The pictures that are shown are the first ones and the mistakes; the title counts what is counted by hand."""

import pytest
import torch

from ssl_zoo.introduction.supervised import PER_ROW, chosen, draw_supervised
from tests.introduction.test_figure import opened
from tests.introduction.test_labels import METRICS


def test_first_pictures_then_mistakes() -> None:
    truth = torch.arange(30) % 10
    predictions = truth.clone()
    predictions[[2, 20, 25]] = 0  # 20 is a 0 anyway
    predictions[25] = 9
    assert chosen(predictions, truth) == [*range(PER_ROW), 2, 25]
    assert chosen(truth, truth) == list(range(PER_ROW))
    assert len(chosen((truth + 1) % 10, truth)) == 2 * PER_ROW


def test_the_figure_is_drawn(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    truth = torch.arange(30) % 10
    predictions = truth.clone()
    predictions[3] = 8
    pictures = torch.rand(30, 8, 8, generator=torch.Generator().manual_seed(0))
    content = draw_supervised(pictures, predictions, truth, METRICS, draws=3, num_train=1397)
    assert min(opened(content).size) > 500
    assert "1397 labels: 1 of 30 test pictures are named wrongly" in caplog.text
    assert "1 labels of each digit: 60.0 % right" in caplog.text
