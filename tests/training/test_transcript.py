"""`run.log` holds the lines that were printed, once each, and can harm neither the run nor the terminal."""

import io
import logging
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from rich.console import Console
from rich.progress import Progress

from ssl_zoo.training import transcript
from tests.conftest import Ended


@pytest.fixture(autouse=True)
def given_back() -> Iterator[None]:
    yield
    transcript.stop_transcript()


def test_both_streams_line_by_line_and_on_to_where_they_went(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    transcript.write_transcript(tmp_path)
    log = (tmp_path / "run.log").read_text
    print("one", end=" ")
    assert log() == ""
    print("two\nthree")
    print("oh", file=sys.stderr)
    sys.stdout.writelines(["four\n", "begun"])
    assert log() == "one two\nthree\noh\nfour\n"
    transcript.stop_transcript()
    print(" and after")
    assert log() == "one two\nthree\noh\nfour\nbegun\n"
    assert capsys.readouterr() == ("one two\nthree\nfour\nbegun and after\n", "oh\n")


def test_it_is_appended_and_begun_once(tmp_path: Path) -> None:
    (tmp_path / "run.log").write_text("earlier\n")
    for _ in range(2):
        before = sys.stdout
        transcript.write_transcript(tmp_path)
        transcript.write_transcript(tmp_path / "elsewhere")
        print("now")
        transcript.stop_transcript()
        transcript.stop_transcript()
        assert sys.stdout is before
    assert (tmp_path / "run.log").read_text() == "earlier\nnow\nnow\n"


def test_a_bar_leaves_its_end_and_what_was_printed_above_it(tmp_path: Path) -> None:
    transcript.write_transcript(tmp_path)
    log = (tmp_path / "run.log").read_text
    console = Console(force_terminal=True, width=80)
    with Progress(console=console) as bar:
        task = bar.add_task("training", total=10)
        for step in range(10):
            bar.update(task, advance=1, refresh=True)
            if step == 4:
                print("step 5: knn/top1 94.0 %")
    console.print("[bold]done[/]")
    said = log().splitlines()
    assert said[0] == "step 5: knn/top1 94.0 %"
    assert said[-1] == "done"
    assert [line.split()[0] for line in said[1:-1]] == ["training"]
    assert "100%" in said[1]
    assert "\x1b" not in log()


def test_it_can_do_no_harm(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A link is not followed, a folder that is not there has no log, and any text can be written."""
    (tmp_path / "precious").write_text("kept")
    (tmp_path / "run.log").symlink_to(tmp_path / "precious")
    for folder in (tmp_path, tmp_path / "nowhere"):
        transcript.write_transcript(folder)
        print("shown")
        transcript.stop_transcript()
    assert (tmp_path / "precious").read_text() == "kept"
    assert capsys.readouterr().out == "shown\nshown\n"
    (tmp_path / "good").mkdir()
    transcript.write_transcript(tmp_path / "good")
    held = sys.stdout
    held._keep("\udcff π")  # type: ignore[union-attr]
    transcript.stop_transcript()
    print("late", file=held)
    assert (tmp_path / "good" / "run.log").read_text() == "\\udcff π\n"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device that is always full")
def test_a_full_disk_ends_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    lines = transcript._Lines()
    lines.file = os.open("/dev/full", os.O_WRONLY)
    print("shown", file=transcript._RecordedStream(sys.stdout, lines))
    os.close(lines.file)
    assert capsys.readouterr().out == "shown\n"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device that is always full")
def test_stdout_that_is_a_file_on_a_full_disk_ends_nothing() -> None:
    """As the output of a job of a sweep is."""
    lines = transcript._Lines()
    with io.TextIOWrapper(open("/dev/full", "wb", buffering=0), write_through=True) as full:
        with pytest.raises(OSError, match="No space left"):
            print("lost", file=full)
        print("recorded", file=transcript._RecordedStream(full, lines))
    assert lines.early == [b"recorded\n"]


def test_what_was_said_before_the_folder_was_known_is_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # In place of those that commands of other tests left, whose streams are closed.
    monkeypatch.setattr(logging.getLogger(), "handlers", [logging.StreamHandler(sys.stdout)])
    transcript.start_transcript()
    print("early")
    logging.getLogger("any").warning("logged")
    assert not list(tmp_path.iterdir())
    transcript.write_transcript(tmp_path)
    logging.getLogger("any").warning("again")
    assert (tmp_path / "run.log").read_text() == "early\nlogged\nagain\n"
    transcript.stop_transcript()
    logging.getLogger("any").warning("after")
    assert "after" not in (tmp_path / "run.log").read_text()


def test_a_run_and_a_mistake_are_in_it(cli: Callable[..., Ended]) -> None:
    """All that a run prints, and what Hydra logs, once each; a log of another run is not touched."""
    quick = ("logger=csv", "trainer.accelerator=cpu", "hydra.run.dir=run", "evaluators=[spread]", "budget.steps=2")
    assert cli(*quick, "method.temperature=0").status == 2
    assert "error: method.temperature=0 must be" in Path("run/run.log").read_text()
    Path("run/run.log").unlink()
    logging.getLogger().handlers.clear()  # of the first command: each opens the file for itself
    ended = cli(*quick)
    said = Path("run/run.log").read_text()
    assert ended.status == 0, ended.err
    for line in ended.out.splitlines():
        if line.strip() and "decoding" not in line:
            assert said.count(line.rstrip()) >= 1, line
    assert said.count("results: ") == 1
    assert said.count("small stem for images of 8 pixels") == 1
    assert cli(*quick, "method.temperature=0.5").status == 2
    assert Path("run/run.log").read_text() == said
