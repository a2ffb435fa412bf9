"""How well scores without labels choose between runs: correlation with the linear probe, and the accuracy it costs.

    python benchmarks/label_free.py
    python benchmarks/label_free.py FOLDER ...      also the runs below these folders

Reads the runs of benchmarks/results/accuracy.jsonl, of each row and seed the last one, and the results.json of all
completed runs below the given folders. Runs are compared within one kind of backbone and one data set. A score that few
runs have, such as those of evaluators=[label_free], is shown for these.

The rule "choose by the score that orders methods best" is devised on one half of the methods and tested on the other:
`devised` is its mean regret over 200 such halves, beside that of a choice at random. All regrets are in points.
"""

import argparse
import json
import math
import statistics
import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from ssl_zoo.report import choosing
from ssl_zoo.report.choosing import SCORES, regret, regret_of_chance, scored_runs
from ssl_zoo.report.results import RESULTS_NAME, read_results

RECORD = Path(__file__).parent / "results" / "accuracy.jsonl"
ACCURACY = "linear/top1"
SPLITS = 200
"""Random halves of the methods."""

Metrics = dict[str, Any]


def kind_of(command: str) -> str:
    """The kind of backbone that a command of the table trains."""
    if "table_text" in command or "table_windows" in command:
        return "text"
    return "ViT" if "table_vit" in command else "ResNet"


def recorded_runs() -> dict[str, list[tuple[str, Metrics]]]:
    """Method and metrics of each run of the table, by kind."""
    last: dict[tuple[str, int], dict[str, Any]] = {}
    for line in RECORD.read_text().splitlines():
        run = json.loads(line)
        last[run["row"], run["seed"]] = run
    runs = defaultdict(list)
    for run in last.values():
        runs[kind_of(run["command"])].append((run["row"], run["metrics"]))
    return dict(runs)


def completed_runs(folders: Iterable[Path]) -> dict[str, list[tuple[str, Metrics]]]:
    """The same of all completed runs below the folders, by backbone and data."""
    runs = defaultdict(list)
    for folder in folders:
        for file in sorted(folder.rglob(RESULTS_NAME)):
            run = read_results(file)
            if run["status"] == "completed":
                runs[f"{run['backbone']} on {run['data']}"].append((run["method"], run["metrics"]))
    return dict(runs)


def rows(runs: Sequence[tuple[str, Metrics]]) -> list[list[str]]:
    """A row per score: correlation across methods and within them, and the regret of choosing by it."""
    table = []
    for score in [*SCORES, "clid"]:
        scored = scored_runs(runs, score, ACCURACY)
        if len(scored) < 3:
            continue
        (rho, methods), (tau, pairs) = choosing.across_methods(scored), choosing.within_methods(scored)
        cells = [f"{rho:+.2f} ({methods})", f"{tau:+.2f} ({pairs})" if pairs else ""]
        table.append([score, *cells, f"{100 * regret(scored):.1f}", f"{100 * regret_of_chance(scored):.1f}"])
    return table


def devised_rule(runs: Sequence[tuple[str, Metrics]]) -> tuple[float, float] | None:
    """Mean regret on one half of the methods of the score, or its opposite, that ordered the other half best.

    Returns:
        It and the regret of a choice at random; None for fewer than six methods.
    """
    names = {method for method, _ in runs}
    if len(names) < 6:
        return None
    known = {score: scored_runs(runs, score, ACCURACY) for score in [*SCORES, "clid"]}
    known = {score: found for score, found in known.items() if len(found) == len(runs)}
    if not known:
        return None
    devised, chance = [], []
    for seed in range(SPLITS):
        first, second = choosing.halves(names, seed)
        found = {
            score: choosing.across_methods(run for run in scored if run.method in first)[0]
            for score, scored in known.items()
        }
        found = {score: 0.0 if math.isnan(rho) else rho for score, rho in found.items()}
        best = max(found, key=lambda score: abs(found[score]))
        sign = 1 if found[best] >= 0 else -1
        tested = [run._replace(score=sign * run.score) for run in known[best] if run.method in second]
        devised.append(regret(tested))
        chance.append(regret_of_chance(tested))
    return statistics.fmean(devised), statistics.fmean(chance)


def main() -> None:
    """Prints a table for each kind of run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", type=Path)
    groups = recorded_runs() | completed_runs(parser.parse_args().folders)
    for kind, runs in groups.items():
        table = rows(runs)
        if not table:
            continue
        print(f"\n{kind}: {len(runs)} runs of {len({method for method, _ in runs})} methods")
        print("| score | across methods (methods) | within (pairs) | regret | of chance |")
        print("| --- | --- | --- | --- | --- |")
        for row in table:
            print(f"| {' | '.join(row)} |")
        if rule := devised_rule(runs):
            print(
                f"devised on one half, tested on the other: regret {100 * rule[0]:.1f}, of chance {100 * rule[1]:.1f}"
            )


if __name__ == "__main__":
    main()
