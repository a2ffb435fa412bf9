"""Compares SimCLR to lightly's, and measures the effect of each setting in which published recipes differ.

    python benchmarks/parity.py steps                    20 steps of both programs from the same weights; minutes
    python benchmarks/parity.py switches --seeds 0 1 2   paired runs of a small network, one setting changed at a time

`steps` runs lightly's loss and projector with torchvision's ResNet-18 in a plain loop on the same weights and views, in
float32, and compares losses and weights for each setting. `switches` records finished runs in results/parity.jsonl,
runs only what is missing, and writes results/parity.md. For the complete programs see lightly's items in gpu_queue.py.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path
from typing import Any

from ssl_zoo.training import hardware

hardware.tune_allocator()

import hydra  # noqa: E402
import torch  # noqa: E402
from lightly.loss import NTXentLoss  # noqa: E402
from lightly.models.modules import SimCLRProjectionHead  # noqa: E402
from scipy.stats import t as student  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from torchvision.models import resnet18  # noqa: E402

from ssl_zoo import build, config  # noqa: E402
from ssl_zoo.learner import Learner  # noqa: E402
from ssl_zoo.method import Batch, Method  # noqa: E402
from ssl_zoo.report import results  # noqa: E402

HERE = Path(__file__).parent
RECORD = HERE / "results" / "parity.jsonl"
TABLE = HERE / "results" / "parity.md"

SWITCHES = {
    "base": [],
    "joint BatchNorm": ["method.views_per_batch_norm=joint"],
    "branches from zero": ["backbone.zero_init_last=true"],
    "no decay on norms and biases": ["optimizer.decay_norms_and_biases=false"],
    "projector with BatchNorm": ["method.hidden_norm=true", "method.last_norm=true"],
}
"""Changes of one setting each; the base is the recipe of experiment=simclr_cifar10_100."""

SMALL = (
    "experiment=table_images optimizer=sgd optimizer.lr=0.06 optimizer.weight_decay=5e-4 "
    "optimizer.decay_norms_and_biases=true schedule.warmup=0.0 backbone.zero_init_last=false "
    "method.hidden_dim=1024 method.out_dim=128 method.temperature=0.5 method.hidden_norm=false "
    "method.views_per_batch_norm=separate budget.examples=60_000 trainer.evaluate_before=false"
)
"""The base with the network of benchmarks/accuracy.py: a ResNet-10 of half the width, CIFAR-10, batches of 128."""


def reference_network(method: Method, norms: bool) -> tuple[nn.Module, nn.Module]:
    """Returns torchvision's ResNet-18 with a CIFAR stem and lightly's projector, with the weights of `method`."""
    backbone = resnet18(weights=None)
    backbone.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    backbone.maxpool = nn.Identity()
    backbone.fc = nn.Identity()
    backbone.load_state_dict(method.backbone.state_dict())
    projector = SimCLRProjectionHead(512, 1024, 128, batch_norm=norms)
    tensors = list(method.get_submodule("projector").state_dict().values())
    projector.load_state_dict(dict(zip(projector.state_dict(), tensors, strict=True)))
    return backbone, projector


class Reference:
    """The reference: torchvision's network, lightly's projector and loss, SGD."""

    def __init__(self, method: Method, cfg: Any, rate: float):
        self.backbone, self.projector = reference_network(method, norms=cfg.method.last_norm)
        self.joint = cfg.method.views_per_batch_norm == "joint"
        self.weights = [*self.backbone.parameters(), *self.projector.parameters()]
        undecayed = [] if cfg.optimizer.decay_norms_and_biases else [p for p in self.weights if p.ndim < 2]
        decayed = [p for p in self.weights if p.ndim > 1] if undecayed else self.weights
        groups: list[dict[str, Any]] = [{"params": decayed}, {"params": undecayed, "weight_decay": 0.0}]
        self.optimizer = torch.optim.SGD(groups, lr=rate, momentum=0.9, weight_decay=5e-4)
        self.criterion = NTXentLoss(temperature=cfg.method.temperature)

    @torch.no_grad()
    def disturb(self) -> None:
        """Changes each weight by about one unit in the last place."""
        for weight in self.weights:
            weight.mul_(1 + 2**-23 * torch.randint_like(weight, -1, 2))

    def loss(self, views: list[Tensor]) -> Tensor:
        """Returns the loss of two views (B, C, H, W)."""
        if self.joint:
            return self.criterion(*self.projector(self.backbone(torch.cat(views))).chunk(2))
        return self.criterion(*(self.projector(self.backbone(view)) for view in views))


def relative_distance(weights: list[nn.Parameter], reference: list[nn.Parameter]) -> float:
    """Returns the norm of the difference of all weights relative to the norm of the reference."""
    difference = torch.stack([(a - b).detach().norm() for a, b in zip(weights, reference, strict=True)]).norm()
    return (difference / torch.stack([b.detach().norm() for b in reference]).norm()).item()


def compare_steps(switch: list[str], steps: int, batch_size: int) -> list[float]:
    """Trains both programs from the same weights and compares them.

    The learning rate is scaled to the batch size; at the rate of a large batch rounding errors grow faster.

    Returns:
        Relative differences of the first loss, of the weights after one step, of the weights at the end, and of the
        reference's weights at the end to those of a reference started one rounding error away, which shows how much of
        the difference is rounding.
    """
    # The same weights in ssl_zoo, the reference and a disturbed reference.
    rate = 0.06 * batch_size / 256
    sizes = [f"data.batch_size={batch_size}", f"optimizer.lr={rate}", "trainer=cpu", "logger=csv"]
    cfg = hydra.compose("config", ["experiment=simclr_cifar10_100", *switch, *sizes])
    data: Any = build.build_data(cfg)
    method = build.build_method(cfg)
    reference, disturbed = Reference(method, cfg, rate), Reference(method, cfg, rate)
    disturbed.disturb()
    learner = Learner(
        method,
        build.build_optimizer(cfg),
        hydra.utils.instantiate(cfg.schedule),
        seed=0,
        total_steps=steps,
        decay_norms_and_biases=cfg.optimizer.decay_norms_and_biases,
    )
    weights = [*method.backbone.parameters(), *method.get_submodule("projector").parameters()]
    optimizers: list[Any] = [learner.configure_optimizers(), reference.optimizer, disturbed.optimizer]
    # The same views for all three; the cosine schedule is set by hand.
    found: list[float] = []
    for step in range(steps):
        indices = torch.arange(step * batch_size, (step + 1) * batch_size)
        views = data.views(data.pixels["train"][indices], indices, 0, 0)
        loss = method(Batch(views, torch.zeros_like(indices), indices), step / steps)["loss"]
        losses = [loss, reference.loss(views), disturbed.loss(views)]
        for optimizer, value in zip(optimizers, losses, strict=True):
            optimizer.zero_grad()
            value.backward()
            for group in optimizer.param_groups:
                group["lr"] = rate * 0.5 * (1 + math.cos(math.pi * step / steps))
            optimizer.step()
        if step == 0:
            found = [abs(losses[0].item() / losses[1].item() - 1), relative_distance(weights, reference.weights)]
    rounding = relative_distance(disturbed.weights, reference.weights)
    return [*found, relative_distance(weights, reference.weights), rounding]


def measure(name: str, seed: int) -> dict[str, Any]:
    """Runs the small network in a separate process on one core and returns the record."""
    command = f"{SMALL} {' '.join(SWITCHES[name])}".strip()
    with tempfile.TemporaryDirectory() as folder:
        call = [sys.executable, "-m", "ssl_zoo.run", *command.split(), f"seed={seed}", "logger=csv"]
        call.append(f"hydra.run.dir={folder}/run")
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        subprocess.run(call, env=environment, capture_output=True, check=True)
        run = results.read_results(Path(folder) / "run")
    kept = {key: run[key] for key in ("metrics", "budget", "environment")}
    return {"name": name, "command": command, "seed": seed, **kept, "date": str(date.today())}


def recorded() -> list[dict[str, Any]]:
    """Returns the recorded runs, oldest first."""
    return [json.loads(line) for line in RECORD.read_text().splitlines()] if RECORD.exists() else []


def interval(values: list[float]) -> str:
    """Formats the mean and the half width of its 95 % interval (Student's t) in percentage points."""
    mean = sum(values) / len(values)
    if len(values) < 2:
        return f"{100 * mean:+.1f}"
    deviation = math.sqrt(sum((v - mean) ** 2 for v in values) / (len(values) - 1))
    half = student.ppf(0.975, len(values) - 1) * deviation / math.sqrt(len(values))
    return f"{100 * mean:+.1f} ± {100 * half:.1f}"


def table() -> str:
    """Returns a Markdown table: difference of each switch to the base with the same seed, with 95 % interval."""
    runs = {(run["name"], run["seed"]): run["metrics"] for run in recorded()}
    seeds = sorted(seed for name, seed in runs if name == "base")
    lines = ["| setting | kNN, points | linear, points | n |", "| --- | ---: | ---: | ---: |"]
    for name in SWITCHES:
        paired = [seed for seed in seeds if (name, seed) in runs]
        if not paired:
            continue
        cells = []
        for key in ("knn/top1", "linear/top1"):
            if name == "base":
                cells.append(f"{100 * sum(runs[name, s][key] for s in paired) / len(paired):.1f} %")
            else:
                cells.append(interval([runs[name, s][key] - runs["base", s][key] for s in paired]))
        lines.append(f"| {name} | {cells[0]} | {cells[1]} | {len(paired)} |")
    return "\n".join(lines)


def run_switches(seeds: list[int], jobs: int) -> None:
    """Runs what is missing and writes the table."""
    done = {(run["name"], run["seed"]) for run in recorded()}
    todo = [(name, seed) for seed in seeds for name in SWITCHES if (name, seed) not in done]
    with ThreadPoolExecutor(jobs) as pool:
        for run in pool.map(lambda job: measure(*job), todo):
            with RECORD.open("a") as file:
                file.write(json.dumps(run) + "\n")
            print(f"{run['name']}, seed {run['seed']}: {run['metrics']['knn/top1']:.4f}", flush=True)
    runs = recorded()
    devices = ", ".join(sorted({run["environment"]["device"] for run in runs}))
    head = (
        f"`python benchmarks/parity.py switches --seeds {' '.join(map(str, seeds))}`, {runs[-1]['date']}, {devices}, "
        f"one core per run, {runs[0]['environment']['precision']}. Differences are to the base of the same seed, with "
        "95 % intervals of their mean."
    )
    TABLE.write_text(f"# SimCLR, one setting changed at a time\n\n{head}\n\nBase: `{SMALL}`\n\n{table()}\n")


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["steps", "switches"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=2, help="parallel runs")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--batch-size", type=int, default=32)
    options = parser.parse_args()
    if options.what == "switches":
        run_switches(options.seeds, options.jobs)
        return print(table())
    with hydra.initialize_config_dir(str(config.CONF), version_base="1.3"):
        for name, switch in SWITCHES.items():
            first, one, last, rounding = compare_steps(switch, options.steps, options.batch_size)
            print(
                f"{name:30} first loss {first:.0e}, weights after 1 step {one:.0e}, after {options.steps} {last:.0e}; "
                f"of the reference and itself one rounding error away {rounding:.0e}",
                flush=True,
            )


if __name__ == "__main__":
    main()
