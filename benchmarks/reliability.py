"""What docs/reliability.md promises, tried: kills, full disks, damaged files, strangers' checkpoints, wrong commands.

    python benchmarks/reliability.py [kills disk damaged gadgets commands] [--kills 20] [--cases 20] [--jobs 2]
    python benchmarks/reliability.py --write          only writes the table of docs/reliability.md again

Each part gives `python run.py` what goes wrong for a user, in small runs of a few seconds, and counts how it ends. The
counts are appended to benchmarks/results/reliability.jsonl, and the last ones of each part are written into the
document. Exit status 1 if anything ended otherwise than promised; each such case is printed.
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
sys.path.insert(0, str(ROOT))  # the gadgets lie with the tests
from benchmarks import failures, small_runs  # noqa: E402

RECORD = ROOT / "benchmarks" / "results" / "reliability.jsonl"
DOCUMENT = ROOT / "docs" / "reliability.md"
MARK = "<!-- benchmarks/reliability.py -->"
PARTS = {
    "kills": failures.kills,
    "disk": failures.disk,
    "damaged": failures.damaged,
    "gadgets": failures.gadgets,
    "commands": failures.commands,
}


def try_part(part: str, options: argparse.Namespace) -> list[str]:
    """Runs a part in a folder of its own and records its counts; gives what ended otherwise than promised."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as place:
        work = Path(place)
        small_runs.prepare(work)
        counts, problems = PARTS[part](work, options)
        problems = [problem.replace(place, "") for problem in problems]
        for folder in work.glob("disk-*"):
            subprocess.run(["umount", str(folder)], capture_output=True, check=False)
    size = f" --kills {options.kills}" if part == "kills" else f" --cases {options.cases}" * bool(options.cases)
    versions = {name: importlib.metadata.version(name) for name in ("torch", "lightning", "hydra-core")}
    line = {
        "part": part,
        "command": f"python benchmarks/reliability.py {part}{size} --seed {options.seed}",
        "counts": counts,
        "problems": problems,
        "seconds": round(time.monotonic() - began),
        "hardware": f"{os.cpu_count()} cores of {platform.machine()}, one per run",
        "versions": {"python": platform.python_version(), **versions},
        "date": str(date.today()),
    }
    print(f"{part}: {', '.join(f'{name}: {count}' for name, count in counts.items())}", *problems, sep="\n", flush=True)
    with RECORD.open("a") as file:
        file.write(json.dumps(line) + "\n")
    return problems


def table() -> str:
    """Markdown: of each part the last counts, the command, when and on what."""
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
    given = {"--cases": options.cases, "--seed": options.seed, "--jobs": options.jobs}
    return [str(word) for pair in given.items() if pair[1] is not None for word in pair]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="part", help=f"of {', '.join(PARTS)}; without any: all")
    parser.add_argument("--kills", type=int, default=10, help="how many signals are sent")
    parser.add_argument(
        "--cases", type=int, default=None, help="of each other part so many, at random; without it: all"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the moments of the signals and the choice of cases")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, each on one core")
    parser.add_argument("--write", action="store_true", help="run nothing, write the table of the document")
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
