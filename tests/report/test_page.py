"""The page is one file that asks for nothing, and a browser shows all of it, on a screen and on a phone."""

import html
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from ssl_zoo.report import page
from ssl_zoo.report.report import compare_folders
from ssl_zoo.report.representations import MAX_MAPS
from tests.report.records import save_run, save_sweep

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
ROWS = (3, 40)
WIDTHS = (1280, 390)


class Tags(HTMLParser):
    """The elements, with a check that each is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in ("meta", "link", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def sweeps(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Folders with the report of so many rows."""
    folders = {}
    for rows in ROWS:
        folders[rows] = tmp_path_factory.mktemp(f"rows{rows}")
        save_sweep(folders[rows], rows)
        compare_folders(folders[rows], baseline="simclr" if rows == 3 else None).write(folders[rows])
    return folders


def test_it_needs_no_other_file_and_no_network(sweeps: dict[int, Path]) -> None:
    text = (sweeps[3] / "report.html").read_text()
    assert len(text) < 1_500_000
    assert (sweeps[40] / "report.html").stat().st_size < 2_000_000
    assert "default-src 'none'" in text
    found = Tags(text).found
    assert all(dict(attrs)["src"].startswith("data:") for tag, attrs in found if "src" in attrs)
    links = [attrs["href"] for tag, attrs in found if tag == "a"]
    folders = [link for link in links if not link.startswith("#")]
    assert len(folders) == 3 + 1 + 6  # sheets, what failed, runs
    assert all((sweeps[3] / link).exists() for link in folders)
    anchors = {attrs.get("id") for _, attrs in found}
    assert all(link[1:] in anchors for link in links if link.startswith("#"))


def test_every_picture_and_figure_has_an_alternative_text(sweeps: dict[int, Path]) -> None:
    found = Tags((sweeps[3] / "report.html").read_text()).found
    images = [attrs for tag, attrs in found if tag == "img"]
    drawings = [attrs for _, attrs in found if attrs.get("role") == "img"]
    assert (len(images), len(drawings)) == (3, 6 + 3)
    assert all(attrs["alt"] for attrs in images)
    assert all(attrs["aria-label"] for attrs in drawings)


def test_the_numbers_are_those_of_the_table(sweeps: dict[int, Path]) -> None:
    comparison = compare_folders(sweeps[3]).comparison
    text = html.unescape((sweeps[3] / "report.html").read_text())
    for row in comparison.rows:
        for key in comparison.metrics:
            assert f">{row.cell(key)}<" in text
    board = page.board(comparison, comparison.headlines, "Leaderboard")
    assert {len(line.cells) for line in board.lines} == {len(board.columns)}
    numbers = [[cell.value for cell in line.cells[1:]] for line in board.lines]
    assert [line.index("") if "" in line else None for line in numbers] == [1, None, None]  # the best has no difference
    assert [line.badge for line in board.lines] == ["best", "", ""]
    found = comparison.differences("linear/top1")[0]
    assert found.low is not None
    assert f"{100 * found.low:.1f} to ".replace("-", "\u2212") in board.lines[1].cells[2].text or (
        f" ± {100 * (found.mean - found.low):.1f}" in board.lines[1].cells[2].text
    )
    assert text.count("method=vicreg seed=1 method.temperature=0.05") == 1


def test_sheets_that_find_no_room_are_links(sweeps: dict[int, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    comparison = compare_folders(sweeps[3]).comparison
    whole = list(page.sheets(comparison, ["a", "b", "c"], sweeps[3]))
    assert all(sheet.source and sheet.width == page.SHEET_WIDTH for sheet in whole)
    monkeypatch.setattr(page, "SHEET_BYTES", len(whole[0].source))
    room = list(page.sheets(comparison, ["a", "b", "c"], sweeps[3]))
    assert [bool(sheet.source) for sheet in room] == [True, False, False]
    assert [sheet.link for sheet in room] == [sheet.link for sheet in whole]
    (Path(comparison.rows[0].runs[0]["folder"]) / "neighbours.png").rename(sweeps[3] / "moved.png")
    assert [sheet.seed for sheet in page.sheets(comparison, ["a", "b", "c"], sweeps[3])] == [1, 0, 0]
    (sweeps[3] / "moved.png").rename(Path(comparison.rows[0].runs[0]["folder"]) / "neighbours.png")


@pytest.mark.parametrize(
    ("value", "text"), [(2.327e12, "2.33e12"), (2327.4, "2,327"), (99.96, "100"), (61.5, "61.5"), (0.25, "0.25")]
)
def test_costs_are_short(value: float, text: str) -> None:
    assert page.short_number(value) == text


def test_a_command_can_be_pasted(tmp_path: Path) -> None:
    save_run(tmp_path / "a", "simclr", 0, overrides=["evaluators=[knn,linear]", "name=it's"])
    (run,) = compare_folders(tmp_path).comparison.rows[0].runs
    described = page.describe_run(run, "simclr", tmp_path)
    assert described["command"] == """python run.py 'evaluators=[knn,linear]' 'name=it'"'"'s'"""
    assert described["link"] == "a"
    assert page.describe_run({**run, "overrides": None}, "simclr", tmp_path)["command"] == "unknown"


MEASURE = """
const box = element => element.getBoundingClientRect(), plain = text => text.replace(/\\s+/g, "");
function measure(page) {
  const root = page.documentElement, width = page.defaultView.innerWidth;
  const drawing = page.querySelector("#drawing-accuracy"), chips = [...page.querySelectorAll(".legend button")];
  const written = new Set([...drawing.querySelectorAll("svg text")].map(each => plain(each.textContent)));
  const outside = [...page.querySelectorAll(".drawing svg text")].filter(each => {
    const [inner, outer] = [box(each), box(each.closest("svg"))];
    return inner.width && (inner.left < outer.left - 1 || inner.right > outer.right + 1 || inner.top < outer.top - 1
      || inner.bottom > outer.bottom + 1 || outer.right > width + 1 || outer.left < -1);
  });
  const lines = [...drawing.querySelectorAll(".role-axis-label text")].map(box).sort((a, b) => a.top - b.top);
  const cut = [...chips, ...page.querySelectorAll(".first, figcaption, li, dd, select")].filter(
    each => each.scrollWidth > each.clientWidth + 1 || box(each).width === 0 && each.offsetParent);
  const sticky = page.querySelector("tbody .first"), scroll = sticky.closest(".scroll");
  scroll.scrollLeft = 500;
  return {scroll: root.scrollWidth, width, drawn: root.dataset.drawn,
    missing: chips.map(each => each.dataset.label).filter(each => !written.has(plain(each))),
    outside: outside.map(each => each.textContent), cut: cut.map(each => each.textContent.slice(0, 60)),
    rows: chips.length, sticks: Math.abs(box(sticky).left - box(scroll).left) < 3, moved: scroll.scrollLeft};
}
const frames = [...document.querySelectorAll("iframe")];
const timer = setInterval(() => {
  if (!frames.every(frame => frame.contentDocument?.documentElement.dataset.drawn)) return;
  clearInterval(timer);
  document.getElementById("result").textContent = JSON.stringify(frames.map(frame => measure(frame.contentDocument)));
}, 100);
"""


@pytest.fixture(scope="module")
def measured(sweeps: dict[int, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[int, int], Any]:
    """What a browser measures of the page of so many rows at such a width; one browser for all."""
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine; on Debian: apt-get install chromium")
    folder = tmp_path_factory.mktemp("browser")
    cases = [(rows, width) for rows in ROWS for width in WIDTHS]
    places = ((sweeps[rows] / "report.html").as_uri() for rows, _ in cases)
    frames = "".join(
        f'<iframe src="{place}" style="width:{width}px;height:800px;border:0"></iframe>'
        for place, (_, width) in zip(places, cases, strict=True)
    )
    all_of_them = f'<!DOCTYPE html><meta charset="utf-8">{frames}<pre id="result"></pre><script>{MEASURE}</script>'
    (folder / "all.html").write_text(all_of_them)
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files", "--window-size=1400,900"]
    flags += [f"--user-data-dir={folder}/profile", "--virtual-time-budget=60000", "--dump-dom"]
    done = subprocess.run([CHROMIUM, *flags, str(folder / "all.html")], capture_output=True, text=True, timeout=120)
    found = re.search(r'<pre id="result">(.+?)</pre>', done.stdout, re.DOTALL)
    assert found is not None, done.stderr[-2000:]
    return dict(zip(cases, json.loads(html.unescape(found[1])), strict=True))


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("rows", ROWS)
def test_a_browser_shows_all_of_it(rows: int, width: int, measured: dict[tuple[int, int], Any]) -> None:
    found = measured[rows, width]
    assert found["width"] == width
    assert found["drawn"] == str(6 + min(rows, MAX_MAPS))
    assert found["rows"] == rows
    assert found["scroll"] <= width
    assert found["missing"] == []
    assert found["outside"] == []
    assert found["cut"] == []
    assert found["sticks"]
    if width == 390:
        assert found["moved"] > 0
