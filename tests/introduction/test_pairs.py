"""Recall is that of a loop, and the pictures that are shown are the first of each class."""

import pytest
import torch
import torch.nn.functional as F

from ssl_zoo.introduction.pairs import Embedded, draw_pairs, first_of_each, recall_at_one
from tests.introduction.test_figure import opened

TRUTH = torch.tensor([2, 0, 1, 1, 2, 0, 0, 2])


def embedded(noise: float) -> Embedded:
    random = torch.Generator().manual_seed(0)
    sentences = F.normalize(torch.randn(3, 6, generator=random), dim=1)
    pictures = sentences[TRUTH] + noise * torch.randn(len(TRUTH), 6, generator=random)
    return Embedded(F.normalize(pictures, dim=1), sentences)


@pytest.mark.parametrize("noise", [0.0, 1.0, 30.0])
def test_recall_is_that_of_a_loop(noise: float) -> None:
    given, hits = embedded(noise), 0
    for picture, label in zip(given.pictures, TRUTH.tolist(), strict=True):
        cosines = [float(picture @ sentence) for sentence in given.sentences]
        hits += max(range(3), key=lambda number: cosines[number]) == label
    found = recall_at_one(given, TRUTH)
    assert found * found.n == pytest.approx(hits)
    assert noise > 0 or found == 1


def test_the_first_picture_of_each_class() -> None:
    assert first_of_each(TRUTH).tolist() == [1, 2, 0]


def test_the_figure_follows_the_embeddings(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    images = torch.rand(len(TRUTH), 8, 8, generator=torch.Generator().manual_seed(0))
    names = ["a 0", "a 1", "a 2"]
    before, after = embedded(30.0), embedded(0.1)
    content = draw_pairs(images, TRUTH, names, before, after)
    assert min(opened(content).size) > 500
    assert content != draw_pairs(images, TRUTH, names, after, after)
    assert "after training, the nearest sentence is right for 100.0 % (67.6 to 100.0) of 8 test pictures" in caplog.text
