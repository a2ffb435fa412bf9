"""The comparison of runs as people read it: `python -m ssl_zoo.report <folders...>` and `ssl_zoo.compare`."""

import argparse
import html
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssl_zoo import files
from ssl_zoo.report import class_view, display, figures, latex, page, representation_view, tables, vega
from ssl_zoo.report import comparison as comparing
from ssl_zoo.report.metrics import AXES
from ssl_zoo.report.series import make_series

AXIS_CHOICES = (*AXES, "labels")


@dataclass(frozen=True)
class Report:
    """A comparison of runs; a notebook shows its verdicts and its table.

    Attributes:
        comparison: the rows, see `ssl_zoo.report.comparison`.
        axis: what accuracy is plotted against at first: "flops", "seconds", "examples" or "labels"; None for the first
            of them that the runs have recorded.
    """

    comparison: comparing.Comparison
    axis: str | None = None

    @property
    def verdicts(self) -> list[str]:
        """One sentence per row on its difference to the baseline."""
        return self.comparison.verdicts

    @property
    def table(self) -> list[list[str]]:
        """A header and one line per row, formatted."""
        return self.comparison.table(self.comparison.headlines)

    def write(self, out: Path | str) -> Path:
        """Writes report.html, report.md, report.tex and report.csv to the folder `out`; returns the first.

        Of what only some runs have kept, report-classes.csv and report-cka.csv; without it no such file.

        Raises:
            OSError: if a file cannot be written.
            ValueError: if no run has recorded what `axis` needs.
        """
        out = Path(out)
        content = {
            "report.html": page.to_page(self.comparison, out, self.axis),
            "report.md": tables.to_markdown(self.comparison),
            "report.tex": latex.to_latex(self.comparison),
            "report.csv": tables.to_csv(self.comparison),
            "report-classes.csv": class_view.classes_csv(self.comparison),
            "report-cka.csv": representation_view.cka_csv(self.comparison),
        }
        out.mkdir(parents=True, exist_ok=True)
        for name, text in content.items():
            if text is None:
                (out / name).unlink(missing_ok=True)
            else:
                files.write_atomically(out / name, text)
        return out / "report.html"

    def write_figures(self, out: Path | str) -> list[Path]:
        """Writes each figure to the folder `out` as report-<name>.pdf, for a paper.

        Raises:
            OSError: if a file cannot be written.
            ValueError: if no run has recorded what `axis` needs.
        """
        written = []
        maps = representation_view.map_figures(self.comparison, make_series(self.comparison))
        for figure in [*figures.make_figures(self.comparison, self.axis), *maps]:
            written.append(Path(out) / f"report-{figure.name}.pdf")
            written[-1].parent.mkdir(parents=True, exist_ok=True)
            files.write_atomically(written[-1], vega.draw_pdf(figure.spec))
        return written

    def _repr_html_(self) -> str:
        """What a notebook shows: the verdicts and the table, without scripts."""
        sentences = "".join(f"<li>{html.escape(sentence)}</li>" for sentence in self.verdicts)
        head, *lines = self.table if self.comparison.rows else self.comparison.incomplete_table()
        first = len(self.comparison.varying) if self.comparison.rows else len(head)
        rows = "".join(f"<tr>{_cells('td', line, first)}</tr>" for line in lines)
        table = f"<table><thead><tr>{_cells('th', head, first)}</tr></thead><tbody>{rows}</tbody></table>"
        return f'<ul>{sentences}</ul><div style="overflow-x: auto">{table}</div>'


def _cells(tag: str, cells: Sequence[str], first: int) -> str:
    """The cells of a line; numbers, from the position `first` on, are right-aligned."""
    sides = ("left" if place < first else "right" for place in range(len(cells)))
    pairs = zip(sides, cells, strict=True)
    return "".join(f'<{tag} style="text-align: {side}">{html.escape(cell)}</{tag}>' for side, cell in pairs)


def compare_folders(
    folders: Iterable[Path | str] | Path | str,
    baseline: str | None = None,
    axis: str | None = None,
    across: bool = False,
) -> Report:
    """Compares runs by the results.json in their folders; `ssl_zoo.compare`.

    Args:
        folders: run folders, or folders that hold some, however deep.
        baseline: the method that others are compared to.
        axis: what accuracy is plotted against at first: "flops", "seconds", "examples" or "labels"; None for the first
            of them that the runs have recorded.
        across: compare rows that differ in data, evaluation, views or budget too.

    Returns:
        The report: `verdicts`, `table`, `write(folder)` and `write_figures(folder)`.

    Raises:
        ValueError: if a folder does not exist, no run is found, there is no such baseline, or no run has recorded what
            `axis` needs.
    """
    runs = tables.load_runs([folders] if isinstance(folders, Path | str) else folders)
    return report_of(runs, baseline, axis, across)


def report_of(
    runs: Sequence[dict[str, Any]], baseline: str | None = None, axis: str | None = None, across: bool = False
) -> Report:
    """Compares the results that `tables.load_runs` returns; otherwise as `compare_folders`."""
    if axis not in (None, *AXIS_CHOICES):
        raise ValueError(f"axis={axis}: no such axis. There are: {', '.join(AXIS_CHOICES)}")
    found = comparing.compare(runs, baseline=baseline, across=across)
    figures.make_figures(found, axis)  # says at once what the axis lacks
    return Report(found, axis)


def write_report(report: Report, out: Path) -> None:
    """Prints the comparison and writes its files to `out`."""
    tables.print_tables(report.comparison)
    print(f"Written beside the runs: {report.write(out)}, .md, .tex, .csv")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status: 0, or 2 for an invalid argument."""
    parser = argparse.ArgumentParser("python -m ssl_zoo.report", description="Compare runs by their results.json.")
    parser.add_argument("folders", nargs="+", type=Path, help="run folders, or folders that hold some, however deep")
    parser.add_argument("--baseline", help="the method that the others are compared to")
    parser.add_argument("--axis", choices=AXIS_CHOICES, help="what accuracy is plotted against at first")
    parser.add_argument(
        "--across", action="store_true", help="compare rows of other data, evaluation, views or budgets too"
    )
    parser.add_argument("--figures", action="store_true", help="write each figure as PDF too, for a paper")
    parser.add_argument("--out", type=Path, help="where the files go; the first folder if not given")
    given = parser.parse_args(arguments)
    display.replace_unencodable()
    first = given.folders[0]
    out = given.out or (first if first.is_dir() else first.parent)
    try:
        report = compare_folders(given.folders, given.baseline, given.axis, given.across)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    write_report(report, out)
    if given.figures:
        print("\n".join(str(path) for path in report.write_figures(out)))
    return 0
