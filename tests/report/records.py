"""Records of runs that never were: as many rows and seeds as a test asks for."""

import functools
import io
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ssl_zoo.report import results
from ssl_zoo.report.kept_features import KeptFeatures, write_features
from ssl_zoo.report.outcomes import ClassLabels, Outcomes, write_outcomes

METHODS = ("simclr", "vicreg", "byol", "dino", "barlow_twins", "supervised", "mae", "moco")
STEPS = 100


def save_run(folder: Path, method: str, seed: int, /, **changes: Any) -> None:
    """One run with curves and few labels; `changes` replace keys of its results."""
    draw = random.Random(f"{folder.name}")
    folder.mkdir(parents=True)
    top = 0.5 + METHODS.index(method) / 40 + draw.uniform(0, 0.02)
    metrics = {"linear/top1": top, "knn/top1": top - 0.05, "init/linear/top1": 0.3, "init/knn/top1": 0.25}
    metrics |= {"rankme": 60 + draw.random(), "linear/l2": 0.01}
    metrics |= {f"few/{n}/{what}": top - 0.3 / n for n in (1, 10) for what in ("linear", "knn", "scratch")}
    metrics |= {f"transfer/{name}/top1": draw.random() for name in ("digits", "cifar100", "stl10")}
    flops = (1 + METHODS.index(method)) * 1e12
    budget = {"kind": "steps", "value": STEPS, "steps": STEPS, "examples": 6400, "flops": flops, "seconds": 61.5}
    facts = {"num_train": 50_000, "num_test": 10_000}
    config = {
        "facts": facts,
        "data": {"splits": {"train": ["train"], "test": "test"}},
        "evaluators": {"linear": {"validation": 0.2}},
        "backbone": {"pretrained": False},
    }
    record = results.empty_results(
        "completed",
        method=method,
        backbone="resnet18",
        data="cifar10",
        seed=seed,
        budget=budget,
        metrics=metrics,
        counts={"linear/top1": 10_000, "knn/top1": 10_000},
        speed={"examples_per_second": 104.1},
        environment={"torch": "2.15.0", "python": "3.11.7", "device": "2 cores", "precision": "32-true", "git": "1a2b"},
        config=config,
        overrides=[f"method={method}", f"seed={seed}"],
    )
    (folder / "results.json").write_text(json.dumps(record | changes))
    rows = [{"step": step, "eval/linear/top1": top * step / STEPS, "train/loss": 1.0} for step in (20, 50, 80)]
    (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    (folder / "neighbours.png").write_bytes(draw_sheet())


NUM_EXAMPLES = 1000
CLASSES = ["aeroplane", "bird", "a very long name of a class", "d", "e", "f", "g", "h", "i", "j"]


def save_outcomes(folder: Path, seed: int, labelled: bool = True, classes: Sequence[str] = CLASSES) -> None:
    """Gives a run of `save_run` correct.npz with its accuracies, to 0.1 points; the first classes are the easiest."""
    y = np.arange(NUM_EXAMPLES) % len(classes)
    ease = np.random.default_rng(seed).random(NUM_EXAMPLES) - 0.5 * y / len(classes)
    record = json.loads((folder / "results.json").read_text())
    found = {}
    for key in ("linear/top1", "knn/top1"):
        count = round(record["metrics"][key] * NUM_EXAMPLES)
        record["metrics"][key] = count / NUM_EXAMPLES
        right = ease.argsort().argsort() >= NUM_EXAMPLES - count
        found[key] = Outcomes(right, "examples", ClassLabels(y, list(classes)) if labelled else None)
    (folder / "results.json").write_text(json.dumps(record))
    write_outcomes(folder, found)


def save_features(folder: Path, seed: int, count: int = 60, examples: str = "examples", mapped: bool = True) -> None:
    """Gives a run features of `count` examples with something in common with those of other seeds."""
    shared = np.random.default_rng(0).standard_normal((count, 16))
    own = np.random.default_rng(seed + 1).standard_normal((count, 16))
    y = np.arange(count) % len(CLASSES)
    write_features(folder, KeptFeatures(shared + own, examples, y, CLASSES, own[:, :2] if mapped else None))


@functools.cache
def draw_sheet() -> bytes:
    """A picture of the size of a sheet of neighbours."""
    content = io.BytesIO()
    Image.effect_noise((1136, 1196), 8).save(content, "PNG")
    return content.getvalue()


def save_sweep(folder: Path, rows: int, seeds: int = 2) -> None:
    """`rows` rows of different temperature and method, and one run that failed."""
    for row in range(rows):
        method = METHODS[row % len(METHODS)]
        temperature = 0.05 * (1 + row // len(METHODS))
        for seed in range(seeds):
            overrides = [f"method={method}", f"seed={seed}", f"method.temperature={temperature:.2f}"]
            place = folder / f"{row:02d}-{seed}"
            save_run(place, method, seed, overrides=overrides)
            record = json.loads((place / "results.json").read_text())
            record["config"]["method"] = {"temperature": temperature}
            (place / "results.json").write_text(json.dumps(record))
            save_outcomes(place, seed=100 * row + seed)
            save_features(place, seed=100 * row + seed)
    error = {"type": "RuntimeError", "message": "CUDA out of memory: " + "tried to allocate more than there is, " * 4}
    save_run(folder / "failed", "moco", 7, status="failed", error=error, metrics={})
