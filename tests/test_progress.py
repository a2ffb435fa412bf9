"""A log file gets a few lines with step, loss and speed."""

from pathlib import Path

import pytest

from ssl_zoo.progress import ProgressBar
from tests.test_learner import Stream, Toy, make_learner, make_trainer


def test_a_log_file_gets_a_few_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trainer = make_trainer(tmp_path, 100, log_every_n_steps=1, callbacks=[ProgressBar(batch_size=4, lines=5)])
    trainer.fit(make_learner(Toy(), 100), datamodule=Stream())
    lines = [line for line in capsys.readouterr().out.splitlines() if "examples/s" in line]
    assert 5 <= len(lines) <= 6
    assert "step 1  loss" in lines[0]
    assert lines[-1].startswith((" 80%", " 99%"))
