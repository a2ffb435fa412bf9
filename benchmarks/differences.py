"""What the runs of benchmarks/accuracy.py show once tested: each method against its own random weights and SimCLR.

    python benchmarks/differences.py         writes benchmarks/results/differences.md

Runs nothing. Differences are paired by seed and tested by the functions of the report; p is corrected by Holm for all
rows of a column.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks import accuracy
from ssl_zoo.report import results
from ssl_zoo.report.comparison import compare
from ssl_zoo.report.difference import Difference, find_differences
from ssl_zoo.report.row import ComparisonRow

TABLE = Path(__file__).parent / "results" / "differences.md"
METRICS = ("knn/top1", "linear/top1")
EXAMPLES = {"table_text": 2_000, "table_windows": 2_000}
"""Test examples by experiment; 10,000 in the others."""
UNTRAINED = "untrained"


def record(row: accuracy.Row, run: dict[str, Any], is_trained: bool) -> dict[str, Any]:
    """A run as the report reads it; not trained, its metrics are those before training."""
    words = dict(word.split("=", 1) for word in row.command.split())
    experiment = words["experiment"]
    metrics = {key: run["metrics"][key if is_trained else f"init/{key}"] for key in METRICS}
    known: dict[str, Any] = {"method": row.name, "seed": run["seed"], "experiment": experiment, "data": experiment}
    known |= {"budget": {"kind": "examples", "value": run["examples"]}, "metrics": metrics}
    known |= {"config": {"views": words.get("views"), "when": None if is_trained else UNTRAINED}}
    known |= {"overrides": [] if is_trained else [UNTRAINED], "environment": run["environment"], "folder": Path()}
    known |= {"counts": dict.fromkeys(METRICS, EXAMPLES.get(experiment, 10_000))}
    return results.empty_results("completed", **known)


def pairs_of(rows: Sequence[accuracy.Row]) -> list[tuple[ComparisonRow, ComparisonRow]]:
    """Each row with the same networks before training, best first."""
    runs = [record(row, run, trained) for row in rows for run in row.runs for trained in (True, False)]
    found = compare(runs).rows
    untrained = {row.names["method"]: row for row in found if row.names["settings"] == UNTRAINED}
    return [(row, untrained[row.names["method"]]) for row in found if row.names["settings"] != UNTRAINED]


def cell(found: Difference | None) -> str:
    """Formats a difference such as "+11.7 ± 2.1, p = 0.012", in bold if it is shown."""
    if found is None or found.mean is None:
        return ""
    if found.p_holm is None or found.low is None or found.high is None:
        return f"{100 * found.mean:+.1f}, not tested"
    p = "p < 0.001" if found.p_holm < 0.001 else f"p = {found.p_holm:.3f}"
    text = f"{100 * found.mean:+.1f} ± {50 * (found.high - found.low):.1f}, {p}"
    return f"**{text}**" if found.is_shown else text


def table(title: str, rows: Sequence[accuracy.Row]) -> Iterator[str]:
    """The lines of one table; SimCLR's row of the same experiment is the baseline."""
    pairs = pairs_of(rows)
    trained = [row for row, _ in pairs]
    columns = [find_differences(pairs, metric, False, [], lambda row: row.names["method"]) for metric in METRICS]
    baselines = {row.names["data"]: row for row in trained if row.names["method"].startswith("simclr")}
    against = [(row, base) for row in trained if (base := baselines.get(row.names["data"])) not in (None, row)]
    columns += [find_differences(against, metric, False, [], lambda row: row.names["method"]) for metric in METRICS]
    yield f"**{title}**"
    yield ""
    yield "| method | n | kNN, to random weights | linear, to random weights | kNN, to SimCLR | linear, to SimCLR |"
    yield "| --- | ---: | ---: | ---: | ---: | ---: |"
    for row in trained:
        cells = [cell(next((found for found in column if found.row is row), None)) for column in columns]
        yield f"| {row.names['method']} | {len(row.seeds)} | {' | '.join(cells)} |"
    for metric, column in zip([*METRICS, *METRICS], columns, strict=True):
        what = "SimCLR" if column is columns[2] or column is columns[3] else "random weights"
        tested = [found for found in column if found.p is not None]
        shown, alone = sum(found.is_shown for found in tested), sum((found.p or 1) <= 0.05 for found in tested)
        yield ""
        yield (
            f"{metric} to {what}: {shown} of {len(tested)} tested differences are shown (p ≤ 0.05 after Holm); "
            f"{alone} if each were the only one."
        )


def main() -> None:
    """Runs the command line."""
    everything = accuracy.measured()
    lines = [
        "`python benchmarks/differences.py`: paired by seed, in points, ± half the 95 % interval, Student's t; p after",
        "Holm over the rows of a column; bold where p ≤ 0.05. From the runs of `benchmarks/accuracy.py`; two seeds are",
        "too few: their interval reaches 12.7 standard errors to each side.",
    ]
    for title, is_text in (("Images", False), ("Text", True)):
        lines += ["", *table(title, [row for row in everything if row.is_text == is_text])]
    TABLE.write_text("\n".join(lines) + "\n")
    print(TABLE.read_text())


if __name__ == "__main__":
    main()
