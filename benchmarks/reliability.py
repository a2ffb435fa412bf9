"""Tests docs/reliability.md: kills, full disks, damaged files, untrusted checkpoints and wrong commands.

    python benchmarks/reliability.py [kills torchrun slurm disk damaged gadgets commands] [--kills 20] [--cases 20]
    python benchmarks/reliability.py --write          only updates the table in docs/reliability.md

Each part exposes `python run.py` to failures that users meet, in small runs of a few seconds, and counts how they end.
The counts are appended to benchmarks/results/reliability.jsonl; the latest of each part are written to the document.
Exit status 1 if anything did not end as specified; each such case is printed.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))  # the gadgets are in the tests
from benchmarks import cluster_kills, failures, small_runs  # noqa: E402

RECORD = ROOT / "benchmarks" / "results" / "reliability.jsonl"
DOCUMENT = ROOT / "docs" / "reliability.md"
MARK = "<!-- benchmarks/reliability.py -->"
PARTS = {
    "kills": failures.kills,
    "torchrun": cluster_kills.torchrun,
    "slurm": cluster_kills.slurm,
    "disk": failures.disk,
    "damaged": failures.damaged,
    "gadgets": failures.gadgets,
    "commands": failures.commands,
}
KILLS = ("kills", "torchrun", "slurm")
"""Parts whose size is a number of kills."""


def try_part(part: str, options: argparse.Namespace) -> list[str]:
    """Runs a part in a temporary folder and records its counts; returns a message per case that failed."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as place:
        work = Path(place)
        small_runs.prepare(work)
        counts, problems = PARTS[part](work, options)
        problems = [problem.replace(place, "") for problem in problems]
        for folder in work.glob("disk-*"):
            subprocess.run(["umount", str(folder)], capture_output=True, check=False)
    size = f" --kills {options.kills}" if part in KILLS else f" --cases {options.cases}" * bool(options.cases)
    versions = {name: importlib.metadata.version(name) for name in ("torch", "lightning", "hydra-core")}
    line = {
        "part": part,
        "command": f"python benchmarks/reliability.py {part}{size} --seed {options.seed}",
        "counts": counts,
        "problems": problems,
        "seconds": round(time.monotonic() - started),
        "hardware": f"{os.cpu_count()} cores of {platform.machine()}, one per run",
        "versions": {"python": platform.python_version(), **versions},
        "date": str(date.today()),
    }
    print(f"{part}: {', '.join(f'{name}: {count}' for name, count in counts.items())}", *problems, sep="\n", flush=True)
    with RECORD.open("a") as file:
        file.write(json.dumps(line) + "\n")
    return problems


def table() -> str:
    """Returns a Markdown table: latest counts of each part, command, date and hardware."""
    lines = [json.loads(line) for line in RECORD.read_text().splitlines()] if RECORD.exists() else []
    last = {line["part"]: line for line in lines}
    rows = ["| part | counts | command | measured |", "| --- | --- | --- | --- |"]
    for part in PARTS:
        if part in last:
            line = last[part]
            counts = ", ".join(f"{name}: {count}" for name, count in line["counts"].items())
            measured = f"{line['date']}, {line['hardware']}, torch {line['versions']['torch']}, {line['seconds']:,} s"
            rows.append(f"| {part} | {counts} | `{line['command']}` | {measured} |")
    return "\n".join(rows) + "\n"


def given_options(options: argparse.Namespace) -> list[str]:
    """Returns the options as words for a command line."""
    given = {"--cases": options.cases, "--seed": options.seed, "--jobs": options.jobs}
    return [str(word) for pair in given.items() if pair[1] is not None for word in pair]


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="part", help=f"one of {', '.join(PARTS)}; default: all")
    parser.add_argument("--kills", type=int, default=10, help="number of signals to send")
    parser.add_argument(
        "--cases", type=int, default=None, help="number of random cases of each other part; default: all"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed for the moments of the signals and the cases")
    parser.add_argument("--jobs", type=int, default=2, help="parallel runs, each on one core")
    parser.add_argument("--write", action="store_true", help="run nothing, only update the table in the document")
    options = parser.parse_args()
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    problems = []
    for part in [] if options.write else options.parts or PARTS:
        if part == "disk" and "SSL_ZOO_OWN_MOUNTS" not in os.environ and failures.can_mount():
            call = ["unshare", "-rm", sys.executable, __file__, part, *given_options(options)]
            problems += ["disk"] * subprocess.call(call, env=os.environ | {"SSL_ZOO_OWN_MOUNTS": "1"})
        else:
            problems += try_part(part, options)
    before, _, after = DOCUMENT.read_text().split(MARK)
    DOCUMENT.write_text(f"{before}{MARK}\n{table()}{MARK}{after}")
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
