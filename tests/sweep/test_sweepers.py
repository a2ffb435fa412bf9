"""The words of each job of a grid, and the end of a sweep with any launcher."""

from types import SimpleNamespace
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import CompactHydraException
from omegaconf import OmegaConf

from ssl_zoo.sweep.sweepers import GridSweeper, conclude, words_of


def test_the_words_of_an_override() -> None:
    for text, words in (
        ("seed=0", ["seed=0"]),
        ("seed=0,1", ["seed=0", "seed=1"]),
        ("lr=range(1,4)", ["lr=1", "lr=2", "lr=3"]),
        ("name='a,b'", ["name='a,b'"]),
        ("+x=choice('a b',c)", [r"+x=a\ b", "+x=c"]),
    ):
        (override,) = OverridesParser.create().parse_overrides([text])
        assert words_of(override) == words
    (override,) = OverridesParser.create().parse_overrides(["lr=interval(0,1)"])
    with pytest.raises(CompactHydraException, match=r"lr=interval\(0,1\): a grid needs single values"):
        words_of(override)


def test_the_command_line_wins_over_the_settings() -> None:
    sweeper = GridSweeper(params={"seed": "0,1", "method": "byol"})
    sweeper.hydra_context: Any = SimpleNamespace(config_loader=None)
    parsed = sweeper.parse(["seed=5"])
    assert [override.input_line for override in parsed] == ["seed=5", "method=byol"]


def test_failed_jobs_of_any_launcher_end_with_the_report(capsys: pytest.CaptureFixture[str]) -> None:
    calls: list[dict[str, Any]] = []
    context: Any = SimpleNamespace(callbacks=SimpleNamespace(on_multirun_end=lambda **given: calls.append(given)))
    ends = [JobReturn(["seed=0"], status=JobStatus.COMPLETED), JobReturn(["seed=1"], status=JobStatus.UNKNOWN)]
    conclude(context, OmegaConf.create(), ends)
    assert not calls  # Hydra calls them
    ends.append(JobReturn(["seed=2", "method=byol"], status=JobStatus.FAILED))
    with pytest.raises(SystemExit, match="1"):
        conclude(context, OmegaConf.create(), ends)
    assert [call["unwritten"] for call in calls] == [[]]
    assert capsys.readouterr().err == "error: 1 of 3 jobs did not complete: seed=2 method=byol\n"
