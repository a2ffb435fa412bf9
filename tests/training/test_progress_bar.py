"""A log file gets a few lines with step, loss and speed."""

from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console
from rich.progress import Progress

from ssl_zoo.training import progress_bar
from ssl_zoo.training.progress_bar import ProgressBar
from tests.test_learner import Stream, Toy, make_learner, make_trainer


def test_a_log_file_gets_a_few_lines(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    trainer = make_trainer(tmp_path, 100, log_every_n_steps=1, callbacks=[ProgressBar(batch_size=4, lines=5)])
    trainer.fit(make_learner(Toy(), 100), datamodule=Stream())
    lines = [line for line in caplog.messages if "examples/s" in line]
    assert [line.split("%")[0].strip() for line in lines] == ["20", "40", "60", "80", "100"]


def test_a_log_file_of_a_long_run_gets_a_line_from_time_to_time(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also between the steps at which the loss is logged."""
    caplog.set_level("INFO")
    monkeypatch.setattr(progress_bar, "MAX_SECONDS_PER_LINE", 0)
    trainer = make_trainer(tmp_path, 10, log_every_n_steps=5, callbacks=[ProgressBar(batch_size=4, lines=1)])
    trainer.fit(make_learner(Toy(), 10), datamodule=Stream())
    shown = [line.split()[2] for line in caplog.messages if "% " in line]
    assert shown == [str(step) for step in range(1, 11)]


@pytest.mark.parametrize(("steps", "log_every"), [(1, 10), (3, 10), (12, 10)])
def test_the_first_and_the_last_step_are_shown_without_nan(
    steps: int, log_every: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    trainer = make_trainer(tmp_path, steps, log_every_n_steps=log_every, callbacks=[ProgressBar(batch_size=4)])
    trainer.fit(make_learner(Toy(), steps), datamodule=Stream())
    shown = [line.split()[2] for line in caplog.messages if "% " in line]
    assert shown == [str(step) for step in sorted({1, 10, steps}) if step <= steps]
    assert "nan" not in caplog.text


def test_the_bar_moves_with_every_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal, from the first step on, though the loss is read now and then only."""
    shown: list[tuple[float, str]] = []
    bar = ProgressBar(batch_size=4)
    bar.console = Console(force_terminal=True, file=StringIO())
    monkeypatch.setattr(
        Progress, "update", lambda self, task, **to: shown.append((to.get("completed"), to.get("description")))
    )
    trainer = make_trainer(tmp_path, 20, log_every_n_steps=10, callbacks=[bar])
    trainer.fit(make_learner(Toy(), 20), datamodule=Stream())
    moves = [completed for completed, _ in shown if completed is not None]
    assert moves == pytest.approx([0.0, *(step / 20 for step in range(1, 21)), 1.0])
    texts = [text for _, text in shown if text is not None]
    assert [text.split()[1] for text in texts] == ["1", "10", "20"]
    assert "nan" not in "".join(texts)
