"""Names are shown as they are, whatever they would mean to the program that shows them."""

import os
import subprocess
import sys

import pytest

from ssl_zoo.report import display

NAMES = ["$5_$10", "a^$b$", "_background_", "[red]", "[/red]", "100%", "猫", "cat 🐈", r"\frac{", "<b>", "a|b", "`x`"]


@pytest.mark.parametrize("name", NAMES)
def test_an_ordinary_name_stays(name: str) -> None:
    assert display.to_plain_text(name) == name


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07x", "x"),
        ("\x1b]8;;http://e.com\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("a\nb\t c\r\n", "a b c"),
        ("a\x00b\x08", "a\ufffdb\ufffd"),
        ("\u202eexe.txt", "\ufffdexe.txt"),
        ("b\udcffd", "b\ufffdd"),
    ],
)
def test_control_characters_are_taken_out(text: str, shown: str) -> None:
    assert display.to_plain_text(text) == shown
    assert display.to_plain_text({text: [text, 1, None]}) == {shown: [shown, 1, None]}


def test_markdown() -> None:
    assert display.escape_markdown("![x](http://e.com) <img src=x> a|b $c$ *d* `e`") == (
        r"!\[x\](http://e.com) &lt;img src=x> a\|b \$c\$ \*d\* \`e\`"
    )
    assert display.escape_markdown("cifar10_captions, 81.0 ± 2.5") == "cifar10_captions, 81.0 ± 2.5"


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t="])
def test_no_cell_is_a_formula(start: str) -> None:
    assert display.escape_spreadsheet(f"{start}HYPERLINK(1)")[0] == "'"
    assert display.escape_spreadsheet("a=b") == "a=b"


@pytest.mark.filterwarnings("ignore:Glyph")
@pytest.mark.parametrize("name", NAMES)
def test_matplotlib_draws_the_name(name: str) -> None:
    from matplotlib.figure import Figure

    figure = Figure()
    axes = figure.add_subplot()
    axes.plot([0], [0], label=display.escape_figure_text(name))
    axes.set_title(display.escape_figure_text(name))
    (shown,) = axes.legend().get_texts()
    assert shown.get_text().strip().replace(r"\$", "$") == name
    figure.draw_without_rendering()


@pytest.mark.parametrize("end", ["| head -c 0", "> /dev/full"])
def test_a_terminal_that_has_gone_away_ends_nothing(end: str) -> None:
    code = (
        "from ssl_zoo.report.display import warn_if_display_fails\n"
        "for _ in range(3):\n    with warn_if_display_fails('it'):\n        print('x' * 1_000_000)\n"
    )
    command = ["bash", "-c", f'set -o pipefail; "$0" -c "$1" {end}', sys.executable, code]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert "could not be shown" in ended.stderr


def test_a_terminal_of_ascii_takes_any_letter() -> None:
    code = "from ssl_zoo.report.display import replace_unencodable as t; t(); print('größe \\udcff')"
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=False, env=os.environ | {"PYTHONIOENCODING": "ascii"}
    )
    assert (ended.returncode, ended.stdout) == (0, b"gr??e ?\n")
