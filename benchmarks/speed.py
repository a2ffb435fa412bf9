"""Measures examples per second of the whole training loop and of the bare model step on one resident batch.

    python benchmarks/speed.py "data=cifar10 backbone.small_stem=false" "experiment=mlm_imdb_short" ...

Each argument is a command line of run.py in one string. Loop and bare step alternate in one process with the same
weights, precision and optimizer. Each number is the median over steps, or over groups of ten steps on a GPU, which runs
asynchronously; the ratio is between the two medians of one turn, and the turn with the median ratio is reported.
Writes benchmarks/results/speed.md.
"""

import argparse
import statistics
import tempfile
import time
from datetime import date
from pathlib import Path
from typing import Any

from ssl_zoo import build, config
from ssl_zoo.training import hardware

hardware.tune_allocator()

import hydra  # noqa: E402
import torch  # noqa: E402
from lightning.pytorch import Callback  # noqa: E402

from ssl_zoo.learner import Learner  # noqa: E402
from ssl_zoo.training import environment  # noqa: E402

RESULTS = Path(__file__).parent / "results" / "speed.md"


class Clock:
    """Measures the median seconds per step, over steps or, on a GPU, over groups of ten steps with synchronisation."""

    def __init__(self) -> None:
        self.group_size = 10 if torch.cuda.is_available() else 1
        self.steps = 0
        self.ends: list[float] = []

    def tick(self) -> None:
        """Marks the end of a step."""
        self.steps += 1
        if self.steps % self.group_size == 0:
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            self.ends.append(time.perf_counter())

    def median(self) -> float:
        """Returns the median of seconds per step, without the first group."""
        between = [b - a for a, b in zip(self.ends[1:-1], self.ends[2:], strict=True)]
        return statistics.median(between) / self.group_size


class StepTimes(Callback):
    """Times the whole loop from the end of one step to the next: data, views, logging and progress bar included."""

    def __init__(self) -> None:
        self.clock = Clock()

    def on_train_batch_end(self, *_: Any) -> None:
        """Marks the end of a step."""
        self.clock.tick()


def bare(learner: Learner, trainer: Any, batch: Any, steps: int) -> float:
    """Returns the median seconds of forward pass, backward pass and optimizer step on `batch`."""
    method = learner.method.train()
    optimizer = learner.configure_optimizers()
    clock = Clock()
    for _ in range(steps):
        with trainer.precision_plugin.forward_context():
            loss = method(batch, 0.5)["loss"]
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        with torch.no_grad():
            method.after_step(0.5)
        clock.tick()
    return clock.median()


def measure(overrides: list[str], steps: int, turns: int) -> tuple[float, float]:
    """Returns examples per second of the loop and of the bare step, from the turn with the median ratio."""
    cfg = hydra.compose("config", [*overrides, "logger=csv", "evaluators=[]"])
    precision, _ = hardware.choose_precision(cfg.trainer.precision, environment.device_type(cfg.trainer.accelerator))
    hardware.prepare_torch(environment.device_type(cfg.trainer.accelerator), precision)
    data: Any = build.build_data(cfg)
    pairs = []
    for _ in range(turns):
        times, method = StepTimes(), build.build_method(cfg)
        with tempfile.TemporaryDirectory() as folder:
            trainer = build.build_trainer(cfg, Path(folder), precision, steps, [times])
            parts = (build.build_optimizer(cfg), hydra.utils.instantiate(cfg.schedule))
            learner = Learner(method, *parts, seed=cfg.seed, total_steps=steps, compile_method=cfg.trainer.compile)
            trainer.fit(learner, datamodule=data)
            learner.to(trainer.strategy.root_device)  # Lightning moved it to the CPU
            batch = trainer.strategy.batch_to_device(next(iter(data.train_dataloader())))  # computes the views too
            seconds = (times.clock.median(), bare(learner, trainer, batch, steps))
            pairs.append((cfg.data.batch_size / seconds[0], cfg.data.batch_size / seconds[1]))
    return sorted(pairs, key=lambda pair: pair[0] / pair[1])[len(pairs) // 2]


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", help='command lines of run.py, e.g. "data=cifar10 method=byol"')
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--turns", type=int, default=3)
    options = parser.parse_args()
    lines = ["| run | loop, examples/s | bare step, examples/s | ratio |", "| --- | ---: | ---: | ---: |"]
    with hydra.initialize_config_dir(str(config.CONF), version_base="1.3"):
        for command in options.runs:
            loop, floor = measure(command.split(), options.steps, options.turns)
            lines.append(f"| `{command}` | {loop:,.1f} | {floor:,.1f} | {loop / floor:.2f} |")
            print(lines[-1], flush=True)
    quoted = " ".join(f'"{command}"' for command in options.runs)
    head = f"`python benchmarks/speed.py {quoted} --steps {options.steps} --turns {options.turns}`, {date.today()}, "
    on_gpu = torch.cuda.is_available()
    where = (
        torch.cuda.get_device_name() if on_gpu else f"{torch.get_num_threads()} threads of {hardware.processor_name()}"
    )
    text = ["# Loop beside the bare step", "", f"{head}{where}", "", *lines, ""]
    RESULTS.write_text("\n".join(text))


if __name__ == "__main__":
    main()
