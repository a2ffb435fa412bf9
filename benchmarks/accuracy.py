"""Trains every method with one small fixed budget and writes the table of the documentation's results page.

    python benchmarks/accuracy.py --seeds 0 1 --jobs 2 [--only simclr byol ...]
    python benchmarks/accuracy.py --tables     # no runs: only writes the tables from the recorded results

The budgets are conf/experiment/table_*.yaml: CIFAR-10 with a small ResNet, or a small ViT where a method needs tokens;
IMDB with four layers. All methods use one optimizer and the hyperparameters of their file in conf/method; nothing is
tuned on these data. Each run is a separate process. Finished runs are recorded in benchmarks/results/accuracy.jsonl, so
repeating the command runs only what is missing. The table is written to benchmarks/results/accuracy.md, and twelve of
its rows to README.md.
"""

import argparse
import ast
import hashlib
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path
from queue import SimpleQueue
from threading import Lock
from typing import Any, NamedTuple

import yaml

from ssl_zoo.report import results
from ssl_zoo.report.estimate import Estimate, with_interval
from ssl_zoo.training.moved import MOVED_TARGETS, SPLIT_KEYS

HERE = Path(__file__).parent
CONF = HERE.parent / "conf"
RECORD = HERE / "results" / "accuracy.jsonl"
TABLE = HERE / "results" / "accuracy.md"
README = HERE.parent / "README.md"
MARK = "<!-- benchmarks/accuracy.py -->"

IN_README = (
    "supervised", "simclr", "moco", "byol", "simsiam", "barlow_twins", "vicreg", "swav", "dino", "mae",
    "simclr (text)", "mlm (text)",
)  # fmt: skip
"""Rows of the README: one or two well-known methods of each family.

They are not the best rows, because after so short a run those are the methods that learn fast at the start."""
OUTDATED = "†"
"""Marks a row whose configuration has changed since it was measured."""

SCORES = ("knn/top1", "init/knn/top1", "linear/top1", "init/linear/top1")
"""Columns of the tables."""
TEXT_BY_CONFIG = ("simclr", "byol", "barlow_twins", "vicreg", "lejepa")
"""Methods that also train on text without changes, on two windows of each review."""

# Linear probe, CIFAR-10, ResNet-18 with the CIFAR stem, 1000 epochs: solo-learn's README, one seed, online classifier.
# Other settings are noted next to the number. DCL, TiCo, MSN, SimMIM: lightly's benchmarks; LeJEPA: eb_jepa; MAE:
# mmpretrain; iBOT: its authors; DINOv2, I-JEPA, data2vec, MaskFeat: stable-pretraining's table; RotNet: VISSL.
PUBLISHED = {
    "all4one": "93.2", "barlow_twins": "92.1", "byol": "92.6", "deepcluster": "88.9", "dino": "89.5", "moco": "92.9",
    "mocov3": "93.1", "nnclr": "91.9", "ressl": "90.6", "simclr": "90.7", "simsiam": "90.5", "supcon": "93.8",
    "swav": "89.2", "vibcreg": "91.2", "vicreg": "92.1", "wmse": "88.7", "dcl": "84.4 (kNN, 200 epochs)",
    "lejepa": "91.0 (300 epochs)", "tico": "85.6 (Imagenette, kNN, 800 epochs)", "rotnet": "48.2 (ImageNet, ResNet-50)",
    "mae": "67.1 (ImageNet, ViT-B, 1600 epochs)", "ibot": "77.9 (ImageNet, ViT-S)",
    "msn": "82.8 (Imagenette, ViT-S, kNN, 800 epochs)", "simmim": "34.3 (Imagenette, ViT-S, kNN, 800 epochs)",
    "dinov2": "42.1 (Imagenette, ViT-S, 200 epochs)", "ijepa": "34.0 (Imagenette, ViT-S, 200 epochs)",
    "data2vec": "26.3 (Imagenette, ViT-S, 200 epochs)", "maskfeat": "25.6 (Imagenette, ViT-S, 200 epochs)",
}  # fmt: skip


def rows(only: list[str]) -> Iterator[tuple[str, str]]:
    """Yields (name of the row, command line of run.py) for the methods in `only`, or for all of conf/method."""
    for name in only or sorted(path.stem for path in (CONF / "method").glob("*.yaml")):
        defaults = yaml.safe_load((CONF / "method" / f"{name}.yaml").read_text()).get("defaults", [])
        chosen = " ".join(f"{k}={v}" for entry in defaults for k, v in entry.items())
        if "captions" in chosen:
            yield name, f"experiment=table_captions method={name}"
        elif "stdlib_docs" in chosen:
            yield f"{name} (text)", f"experiment=table_text method={name}"
        else:
            # The experiment's two views are augmented equally; ReSSL uses a weaker view for the teacher.
            own = " views=weak" * ("paper_views.digits=weak" in chosen) + " views=ressl" * (name == "ressl")
            yield name, f"experiment={'table_vit' if 'vit' in chosen else 'table_images'} method={name}{own}"
        if name in TEXT_BY_CONFIG:
            yield f"{name} (text)", f"experiment=table_windows method={name}"
        if name == "supervised":
            yield f"{name} (text)", f"experiment=table_text method={name} data.train_rows=labelled"


def recipe(command: str) -> str:
    """Returns a hash of the config files of a command, which tells results of older configurations apart."""
    chosen = dict(word.split("=", 1) for word in command.split())
    files = [CONF / "experiment" / f"{chosen['experiment']}.yaml", CONF / "method" / f"{chosen['method']}.yaml"]
    experiment, method = (yaml.safe_load(file.read_text()) for file in files)  # comments do not count
    if any("/views" in key for entry in experiment["defaults"] if isinstance(entry, dict) for key in entry):
        # The experiment chooses the views, whatever the method declares.
        kept = [entry for entry in method.pop("defaults", []) if not any("paper_views" in key for key in entry)]
        method = {"defaults": kept, **method} if kept else method
    # Neither another name of a key nor another place of a class changes the recipe.
    text = json.dumps([experiment, with_joined_keys(method)])
    for before, now in MOVED_TARGETS.items():
        text = text.replace(f'"{now}"', f'"{before}"')
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def with_joined_keys(method: dict[str, Any]) -> dict[str, Any]:
    """Returns the configuration of a method with the list that it held before `moved.SPLIT_KEYS`, in the same place."""
    for before, now in SPLIT_KEYS.items():
        if method.keys() >= set(now):
            joined = {before: [method[key] for key in now]}
            others = [{key: value} if key not in now else joined for key, value in method.items()]
            method = {key: value for part in others for key, value in part.items()}
    return method


def recorded() -> list[dict[str, Any]]:
    """Returns the recorded runs, oldest first."""
    return [json.loads(line) for line in RECORD.read_text().splitlines()] if RECORD.exists() else []


def measure(row: str, command: str, seed: int, core: int, threads: int) -> str | None:
    """Runs one command and records its results. Returns the error message if it failed, else None."""
    # Run in a temporary folder, pinned to its own cores.
    cores = set(range(core * threads, (core + 1) * threads))
    with tempfile.TemporaryDirectory() as folder:
        call = [
            sys.executable,
            "-m",
            "ssl_zoo.run",
            *command.split(),
            "logger=csv",
            f"seed={seed}",
            f"hydra.run.dir={folder}/run",
        ]
        ended = subprocess.run(
            call,
            env=os.environ | {"OMP_NUM_THREADS": str(threads)},
            preexec_fn=lambda: os.sched_setaffinity(0, cores),
            capture_output=True,
            text=True,
            check=False,
        )
        if ended.returncode:
            return f"{row}, seed {seed}: {(ended.stderr.strip().splitlines() or ['no message'])[-1]}"
        run = results.read_results(Path(folder) / "run")
    line = {
        "row": row,
        "command": command,
        "recipe": recipe(command),
        "seed": seed,
        "metrics": run["metrics"],
        "examples": run["budget"]["examples"],
        "seconds": round(run["budget"]["seconds"], 1),
        "examples_per_second": round(run["speed"]["examples_per_second"], 1),
        "environment": run["environment"],
        "threads": threads,
        "date": str(date.today()),
    }
    with RECORD.open("a") as file:
        file.write(json.dumps(line) + "\n")
    return None


def paper(method: str) -> str:
    """Returns a Markdown link to the paper, from the header of the method's configuration or else of its module."""
    text = (CONF / "method" / f"{method}.yaml").read_text()
    config = yaml.safe_load(text)
    target = config.get("method", config)["_target_"]  # a file of the global package also sets other groups
    source = (HERE.parent / Path(*target.split(".")[:-1])).with_suffix(".py").read_text()
    header = text if "https://" in text else ast.get_docstring(ast.parse(source)) or ""
    link = re.search(r"https://\S+?(?=[,.;)]*\s)", header)
    return f"[paper]({link.group()})" if link else ""


class Row(NamedTuple):
    """A row of the table.

    Attributes:
        name: name of the row.
        command: command line of run.py.
        runs: one per seed, all with the same recipe.
        is_current: whether that recipe is the current configuration.
    """

    name: str
    command: str
    runs: list[dict[str, Any]]
    is_current: bool

    @property
    def is_text(self) -> bool:
        """Whether the row is measured on text."""
        return self.name.endswith(" (text)")

    @property
    def method(self) -> str:
        """Name of the method."""
        return self.name.removesuffix(" (text)")

    def cell(self, key: str, is_plain: bool = False) -> str:
        """Formats a metric in percent, with its interval for several runs unless `is_plain`; "" if not measured."""
        values = tuple(run["metrics"][key] for run in self.runs if key in run["metrics"])
        if not values:
            return ""
        estimate = Estimate(values)
        ends = None if is_plain else estimate.interval(is_share=True)
        return with_interval(100 * estimate.mean, ends and (100 * ends[0], 100 * ends[1]), decimals=1)

    @property
    def scores(self) -> list[str]:
        """Cells of kNN and linear probe, each followed by the value before training."""
        return [self.cell(key) for key in SCORES]

    @property
    def label(self) -> str:
        """The name, marked if the row is outdated."""
        return self.name if self.is_current else f"{self.name} {OUTDATED}"


def measured() -> list[Row]:
    """Returns the rows with runs, best kNN first; without runs of the current recipe, those of the latest one."""
    found, runs = [], recorded()
    for name, command in rows([]):
        own = [run for run in runs if run["row"] == name and run["command"] == command]
        if own:
            current = recipe(command)
            is_current = any(run["recipe"] == current for run in own)
            shown = current if is_current else own[-1]["recipe"]
            found.append(Row(name, command, [run for run in own if run["recipe"] == shown], is_current))
    return sorted(found, key=lambda row: -statistics.fmean(run["metrics"]["knn/top1"] for run in row.runs))


def table() -> str:
    """Returns the full tables in Markdown, best kNN first, images before text."""
    everything = measured()
    if not everything:
        return "Nothing measured yet.\n"
    parts = []
    for title, is_text in (("Images", False), ("Text", True)):
        last = "masked top-1 %" if is_text else "published %"
        lines = [
            f"| method | | kNN % | *init* | linear % | *init* | n | examples/s | {last} | command |",
            "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- |",
        ]
        for row in everything:
            if row.is_text != is_text:
                continue
            speed = statistics.fmean(run["examples_per_second"] for run in row.runs)
            extra = row.cell("mask/top1") if is_text else PUBLISHED.get(row.method, "")
            cells = [row.label, paper(row.method), *row.scores, str(len(row.runs)), f"{speed:.0f}", extra]
            lines.append(f"| {' | '.join(cells)} | `{row.command}` |")
        if len(lines) > 2:
            parts.append("\n".join([f"**{title}**", "", *lines]))
    # The line above the tables.
    runs = [run for row in everything for run in row.runs]
    seeds = sorted({run["seed"] for run in runs})
    dates = sorted({run["date"] for run in runs})
    cores = ", ".join(map(str, sorted({run["threads"] for run in runs})))
    machines = ", ".join(sorted({run["environment"]["device"].split()[0] for run in runs}))
    head = (
        f"`python benchmarks/accuracy.py --seeds {' '.join(map(str, seeds))}`, {dates[0]} to {dates[-1]}, "
        f"{cores} core(s) per run of {machines}, {runs[0]['environment']['precision']}. "
        "± or the range in brackets is the 95 % interval of the mean over n seeds (Student's t on the logit scale); "
        "two seeds are too few, n = 1 has none."
    )
    if not all(row.is_current for row in everything):
        head += f" {OUTDATED}: measured before the configuration of this row changed."
    return head + "\n\n" + "\n\n".join(parts) + "\n"


def short_table() -> str:
    """Returns the measured rows of `IN_README` in Markdown."""
    known = {row.name: row for row in measured()}
    lines = ["| method | kNN % | *init* | linear % | *init* |", "| --- | ---: | ---: | ---: | ---: |"]
    chosen = [known[name] for name in IN_README if name in known]
    for row in chosen:  # the intervals of random weights are in the full table
        cells = [row.cell(key, is_plain=key.startswith("init/")) for key in SCORES]
        lines.append(f"| {' | '.join([row.label, *cells])} |")
    if not all(row.is_current for row in chosen):
        lines += ["", f"{OUTDATED}: measured before the configuration of this row changed."]
    return "\n".join(lines) + "\n"


def publish() -> None:
    """Writes the full tables to their file and the short table between the two marks in the README."""
    TABLE.write_text(table())
    before, _, after = README.read_text().split(MARK)
    README.write_text(f"{before}{MARK}\n{short_table()}{MARK}{after}")


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--jobs", type=int, default=1, help="parallel runs, each with an equal share of the cores")
    parser.add_argument("--only", nargs="+", default=[], help="names of conf/method")
    parser.add_argument("--tables", action="store_true", help="run nothing, only write the tables")
    options = parser.parse_args()
    if options.tables:
        return publish()
    done = {(run["command"], run["recipe"], run["seed"]) for run in recorded()}
    todo = [(r, c, s) for s in options.seeds for r, c in rows(options.only) if (c, recipe(c), s) not in done]
    todo.sort(key=lambda job: "(text)" in job[0])  # text takes longer
    threads = max(1, (os.cpu_count() or 1) // options.jobs)
    free: SimpleQueue[int] = SimpleQueue()
    publishing = Lock()  # the README must not be read while it is written
    for core in range(options.jobs):
        free.put(core)

    def one(job: tuple[str, str, int]) -> str | None:
        core = free.get()
        try:
            problem = measure(*job, core, threads)
        finally:
            free.put(core)
        print(problem or f"{job[0]}, seed {job[2]}: done", flush=True)
        with publishing:
            publish()
        return problem

    with ThreadPoolExecutor(options.jobs) as pool:
        problems = [problem for problem in pool.map(one, todo) if problem]
    publish()
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
