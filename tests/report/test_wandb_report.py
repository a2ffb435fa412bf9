"""What a stand-in for wandb is given: each table, each figure, the page, all files; and its failures end nothing."""

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from ssl_zoo.report.report import Report, compare_folders
from ssl_zoo.report.wandb_report import send_to_wandb
from tests.report.records import save_features, save_outcomes, save_run


class StandIn(ModuleType):
    """wandb, as far as a report uses it."""

    def __init__(self, fails: str = "") -> None:
        super().__init__("wandb")
        self.fails = fails
        self.logged: dict[str, Any] = {}
        self.files: list[str] = []
        self.about: list[dict[str, Any]] = []
        self.finished = 0
        self.Table = self.Image = self.Html = self.Settings = lambda *given, **named: SimpleNamespace(
            given=given, **named
        )
        self.Artifact = lambda name, type: SimpleNamespace(add_file=self.files.append)

    def login(self, prompt: bool) -> bool:
        return prompt

    def init(self, **about: Any) -> Any:
        self.about.append(about)
        return self

    def log(self, content: dict[str, Any]) -> None:
        if self.fails:
            raise ConnectionError(self.fails)
        self.logged |= content

    def log_artifact(self, artifact: Any) -> None:
        assert artifact.add_file

    def finish(self) -> None:
        self.finished += 1


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Report, Path]:
    folder = tmp_path_factory.mktemp("sweep")
    for number, method in enumerate(("simclr", "byol")):
        save_run(folder / method, method, 0)
        save_outcomes(folder / method, number)
        save_features(folder / method, number)
    report = compare_folders(folder)
    report.write(folder)
    return report, folder


def test_tables_figures_page_and_files(written: tuple[Report, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    fake, (report, folder) = StandIn(), written
    monkeypatch.setitem(sys.modules, "wandb", fake)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    for _ in range(2):
        send_to_wandb(report, folder, "zoo", "a-sweep")
    assert [about["mode"] for about in fake.about] == ["offline"] * 2
    assert len({about["id"] for about in fake.about}) == 1
    assert {(about["project"], about["group"], about["job_type"]) for about in fake.about} == {
        ("zoo", "a-sweep", "report")
    }
    assert fake.logged["report/leaderboard"].data == report.table[1:]
    assert fake.logged["report/verdicts"].data == [[line] for line in report.verdicts]
    assert len(fake.logged["report/linear/top1 by class, cifar10"].data) == 2
    figures = {name.partition("/")[2] for name, value in fake.logged.items() if hasattr(value, "caption")}
    assert figures == {"accuracy", "compute", "labels", "curves", "classes", "cka", "map-1", "map-2"}
    assert fake.logged["report/cka"].given[0].width >= 640
    assert fake.logged["report/page"].given[0] == (folder / "report.html").read_text()
    names = {Path(file).name for file in fake.files}
    assert {"report.html", "report.csv", "report-classes.csv", "report-cka.csv"} <= names
    assert fake.finished == 2


def test_a_failure_is_only_told(
    written: tuple[Report, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake = StandIn("no network")
    monkeypatch.setitem(sys.modules, "wandb", fake)
    send_to_wandb(*written, "zoo")
    assert "wandb: the report was not sent (ConnectionError: no network)" in capsys.readouterr().err
    assert fake.finished == 1
