"""A queue of runs for a GPU: executes as many as fit into the given seconds and records each result.

    python benchmarks/gpu_queue.py --list                        the plan with its estimates; needs no GPU
    python benchmarks/gpu_queue.py --seconds 540 --out FOLDER    on a machine that is available for minutes: docs/gpu.md

Each run is a separate process and is recorded in FOLDER/gpu.jsonl when it ends, so an aborted queue loses only what was
running; runs of run.py resume from their checkpoint when the queue is started again with the same FOLDER. Items already
recorded in benchmarks/results/gpu.jsonl or FOLDER/gpu.jsonl are skipped: copy the lines of the latter to the former and
commit them. All runs share FOLDER's caches of decoded images and compiled kernels. Estimates are for one H200.
"""

import argparse
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

from ssl_zoo.report import results

HERE = Path(__file__).parent
KEPT = HERE / "results" / "gpu.jsonl"
NAME = "gpu.jsonl"

START = 45.0
"""Seconds from the start of a process to its first step: imports, decoding, compilation (55 in the first runs)."""
EVALUATION = 15.0
"""Seconds of kNN and linear probe on 50,000 + 10,000 images."""
SIMCLR_SPEED = 38_400.0
"""Examples per second of two views, ResNet-18 with the CIFAR stem, bf16, compiled (benchmarks/speed.py, one H200)."""
GRACE = 20.0
"""Seconds for a run to write its checkpoint when the time is up."""


class Item(NamedTuple):
    """One process in the queue.

    Attributes:
        name: name in the records.
        command: arguments of the Python interpreter, with {out} for the output folder.
        seconds: estimated duration.
        dry: the command that tests the item on a CPU in seconds.
    """

    name: str
    command: str
    seconds: float
    dry: str


DRY_RUN = (
    " trainer.accelerator=cpu trainer.compile=false trainer.precision=32-true budget.epochs=null budget.steps=2 "
    "data.batch_size=8 data.eval_examples=100"
)


def run_item(name: str, overrides: str, epochs: int, cost: float = 1.0, seed: int = 0) -> Item:
    """Returns a run of run.py on CIFAR-10. cost: time per example relative to SimCLR with two views."""
    command = (
        f"-m ssl_zoo.run {overrides} budget.epochs={epochs} seed={seed} trainer.evaluate_before=false "
        "trainer.checkpoint_every=2000 logger=csv hydra.run.dir={out}"
    )
    seconds = START + EVALUATION + epochs * 50_000 * cost / SIMCLR_SPEED
    return Item(name, command, seconds, command + DRY_RUN)


def lightly_item(epochs: int) -> Item:
    """Returns a run of lightly's program. Its views are computed on the CPU: 11 s per epoch, 13 workers, 16 cores."""
    program = "benchmarks/lightly_simclr.py --out {out}"
    return Item(
        f"lightly's simclr {epochs}",
        f"{program} --epochs {epochs} --workers 14",
        20 + EVALUATION + 11 * epochs,
        f"{program} --device cpu --precision 32-true --steps 2 --batch-size 8 --workers 0 --eval-examples 100",
    )


SIMCLR = "experiment=simclr_cifar10_100"
VARIATIONS = {
    "joint BatchNorm": "method.views_per_batch_norm=joint",
    "branches from zero": "backbone.zero_init_last=true",
    "no decay on norms and biases": "optimizer.decay_norms_and_biases=false",
    "grey 0.2": "views.pipelines.0.3.p=0.2",
    "projector with BatchNorm": "method.hidden_norm=true method.last_norm=true",
    "float32": "trainer.precision=32-true",
}
"""Changes of one setting each to the SimCLR run of 100 epochs."""

LIGHTLY = (
    f"{SIMCLR} data.mean=[0.485,0.456,0.406] data.std=[0.229,0.224,0.225] views.pipelines.0.0.scale=[0.08,1.0] "
    "views.pipelines.0.3.p=0.2 method.hidden_dim=512 method.hidden_norm=true method.last_norm=true optimizer.lr=0.24"
)
"""The settings of lightly's program, to compare both programs on the same pixels; only the initialisation differs."""

METHODS = {
    "simclr": ("method=simclr views=mild", 1.0),
    "byol": ("method=byol views=byol", 1.4),
    "vicreg": ("method=vicreg views=mild", 1.05),
    "barlow_twins": ("method=barlow_twins views=byol", 1.05),
    "mocov3": ("method=mocov3 views=byol", 1.4),
    "simsiam": ("method=simsiam views=simclr", 1.05),
    "dino": ("method=dino views=multicrop", 2.5),
    "swav": ("method=swav views=multicrop", 2.0),
    "lejepa": ("method=lejepa views=simclr", 1.1),
    "nnclr": ("method=nnclr views=byol", 1.05),
    "supcon": ("method=supcon views=simclr", 1.0),
}
"""Method -> (overrides with the views of its paper, estimated time per example relative to SimCLR)."""


def plan() -> list[Item]:
    """Returns all items in order of priority."""
    # Parity: SimCLR, lightly's program, and single changes of settings.
    items = [run_item("simclr 100", SIMCLR, 100)]
    for epochs in (14, 100):
        items.append(lightly_item(epochs))
        items.append(run_item(f"simclr {epochs}, lightly's settings", LIGHTLY, epochs))
    items += [
        run_item(f"simclr 100, {name}", f"{SIMCLR} {change}", 100, cost=2.5 if name == "float32" else 1.0)
        for name, change in VARIATIONS.items()
    ]
    items += [
        run_item(
            f"supervised {epochs}",
            "experiment=cifar10_200 method=supervised views=weak optimizer.lr=0.1 evaluators=[knn,linear]",
            epochs,
            0.6,
        )
        for epochs in (30, 100)
    ]
    # The table of methods, with further seeds for three of them.
    items += [run_item(f"{n} 200", f"experiment=cifar10_200 {o}", 200, cost) for n, (o, cost) in METHODS.items()]
    items += [
        run_item(f"{name} 200, seed {seed}", f"experiment=cifar10_200 {METHODS[name][0]}", 200, METHODS[name][1], seed)
        for seed in (1, 2)
        for name in ("simclr", "byol", "vicreg")
    ]
    # Tests and speed.
    tests = "-m pytest -n 0 -q tests/test_methods_gpu.py"
    items.append(Item("tests on the GPU", tests, 240, f"{tests} --collect-only"))
    items += [
        Item(
            f"speed, {name}, {'compiled' if compiled else 'eager'}",
            f"benchmarks/speed.py --steps 100 --turns 1 '{overrides} trainer=gpu trainer.compile={compiled}'",
            START + 40,
            f"benchmarks/speed.py --help '{overrides} trainer=cpu'",
        )
        for name, overrides in (
            ("SimCLR, ResNet-18", "experiment=cifar10_200"),
            ("SimCLR, ViT-S/16 at 224", "data=cifar10 data.image_size=224 backbone=vit_small"),
            ("MLM, BERT-base", "method=mlm data=stdlib_docs backbone=text_base"),
        )
        for compiled in (False, True)
    ]
    return items


def recorded(*files: Path) -> list[dict[str, Any]]:
    """Returns the records in those of `files` that exist."""
    return [json.loads(line) for file in files if file.exists() for line in file.read_text().splitlines()]


def waiting(items: list[Item], out: Path | None = None) -> list[Item]:
    """Returns the items without a result, identified by name and command."""
    files = [KEPT] if out is None else [KEPT, out / NAME]
    done = {(line["name"], line["command"]) for line in recorded(*files)}
    return [item for item in items if (item.name, item.command) not in done]


class Queue:
    """Runs items while they fit into the remaining time and records their results."""

    def __init__(self, items: list[Item], out: Path, seconds: float, dry_run: bool = False):
        self.items = items
        self.out = out
        self.dry_run = dry_run
        self.deadline = time.monotonic() + seconds
        self.lock = Lock()

    def left(self) -> float:
        """Seconds until the deadline."""
        return self.deadline - time.monotonic()

    def next(self) -> Item | None:
        """Removes and returns the first item that fits into the remaining time, None if there is none."""
        with self.lock:
            for item in self.items:
                if self.dry_run or item.seconds <= self.left():
                    self.items.remove(item)
                    return item
        return None

    def work(self) -> None:
        """Runs items until none fits."""
        while item := self.next():
            self.measure(item)

    def measure(self, item: Item) -> None:
        """Runs one item in a separate process until its end or the deadline, and records it if it succeeded."""
        folder = self.out / "runs" / "".join(c if c.isalnum() else "_" for c in item.name)
        folder.mkdir(parents=True, exist_ok=True)
        words = shlex.split(item.dry if self.dry_run else item.command)
        call = [sys.executable, *(word.replace("{out}", str(folder)) for word in words)]
        started = time.monotonic()
        with (folder / "log.txt").open("w") as log:
            process = subprocess.Popen(call, cwd=HERE.parent, env=self.environment(), stdout=log, stderr=log)
            try:
                status = process.wait(timeout=max(self.left(), 1))
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGTERM)  # run.py writes a checkpoint
                try:
                    process.wait(timeout=GRACE)
                except subprocess.TimeoutExpired:
                    process.kill()
                return print(f"{item.name}: cut off after {time.monotonic() - started:.0f} s", flush=True)
        seconds = time.monotonic() - started
        tail = (folder / "log.txt").read_text(errors="replace").strip().splitlines()[-12:]
        if status:
            return print(f"{item.name}: failed after {seconds:.0f} s\n" + "\n".join(tail), flush=True)
        self.record(item, folder, seconds, tail)

    def record(self, item: Item, folder: Path, seconds: float, tail: list[str]) -> None:
        """Records an item: the content of its results.json, or else the last lines it printed."""
        line: dict[str, Any] = {
            "name": item.name,
            "command": item.command,
            "seconds": round(seconds, 1),
            "date": str(date.today()),
        }
        if (folder / results.RESULTS_NAME).exists():
            run = results.read_results(folder)
            line |= {key: run[key] for key in ("seed", "metrics", "budget", "speed", "environment")}
        else:
            line["output"] = tail
        with self.lock, (self.out / NAME).open("a") as file:
            file.write(json.dumps(line) + "\n")
        shown = {key: round(value, 4) for key, value in line.get("metrics", {}).items() if key.endswith("top1")}
        print(f"{item.name}: {seconds:.0f} s of {item.seconds:.0f} estimated; {shown or tail[-1:]}", flush=True)

    def environment(self) -> dict[str, str]:
        """Returns environment variables with the caches of decoded images and compiled kernels that all runs share."""
        caches = {
            "SSL_ZOO_CACHE": self.out / "cache",
            "TORCHINDUCTOR_CACHE_DIR": self.out / "inductor",
            "TRITON_CACHE_DIR": self.out / "triton",
        }
        paths = os.pathsep.join(filter(None, (str(HERE.parent), os.environ.get("PYTHONPATH"))))
        return os.environ | {key: str(folder) for key, folder in caches.items()} | {"PYTHONPATH": paths}


def show(items: list[Item]) -> None:
    """Prints the items with their estimates and the total."""
    for item in items:
        print(f"{item.seconds:6.0f} s  {item.name:36}  python {item.command}")
    print(f"{sum(item.seconds for item in items):6.0f} s  for {len(items)} items")


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--list", action="store_true", help="print the remaining items and exit")
    parser.add_argument("--dry-run", action="store_true", help="a few steps of each item on the CPU")
    parser.add_argument("--only", nargs="+", default=[], help="names of items")
    parser.add_argument("--seconds", type=float, default=540)
    parser.add_argument("--jobs", type=int, default=1, help="parallel processes: one starts while another trains")
    parser.add_argument("--out", type=Path, help="folder of runs, caches and gpu.jsonl")
    options = parser.parse_args()
    items = plan()
    if unknown := set(options.only) - {item.name for item in items}:
        parser.error(f"--only: no such items: {', '.join(sorted(unknown))}. See --list")
    items = [item for item in items if not options.only or item.name in options.only]
    if not options.dry_run:
        items = waiting(items, options.out)
    if options.list:
        return show(items)
    if options.out is None:
        parser.error("--out: give the folder for runs, caches and results")
    options.out.mkdir(parents=True, exist_ok=True)
    queue = Queue(items, options.out.resolve(), options.seconds, options.dry_run)
    with ThreadPoolExecutor(options.jobs) as pool:
        list(pool.map(lambda _: queue.work(), range(options.jobs)))
    done = len(recorded(options.out / NAME))
    print(f"{done} results in {options.out / NAME}. Next:")
    show(queue.items[:5])


if __name__ == "__main__":
    main()
