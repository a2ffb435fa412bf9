"""Every sentence has one blank, and the figure shows guesses of before and after."""

import pytest

from ssl_zoo.introduction.words import SENTENCES, draw_words
from ssl_zoo.tasks.fill_mask import BLANK_PATTERN
from tests.introduction.test_figure import opened


def test_every_sentence_has_one_blank() -> None:
    assert [len(BLANK_PATTERN.findall(sentence)) for sentence in SENTENCES] == [1] * len(SENTENCES)


def test_the_figure_follows_the_guesses(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    metrics = {"init/mask/top1": 0.001, "mask/top1": 0.2}
    before = [[("zip", 0.002), ("of", 0.001)]] * len(SENTENCES)
    after = [[("file", 0.4), ("list", 0.1), ("$\\x", 0.1), ("\x11猫", 0.1)]] * len(SENTENCES)
    first, same = draw_words(before, after, metrics), draw_words(before, before, metrics)
    assert min(opened(first).size) > 500
    assert first != same
    assert f"{SENTENCES[0]} after: file 40.0 %, list 10.0 %, " in caplog.text
