"""Measures augmentation alone: SimCLR views of 32-pixel images per second and core, ssl_zoo and torchvision.

Run `python benchmarks/views.py`; prints a table and writes it to benchmarks/results/views.md. All pipelines run in each
round, so that other load on the machine affects them equally; time is the CPU time of the single thread.
"""

import datetime
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torchvision
from sklearn.datasets import load_sample_images
from torch import Tensor
from torchvision.transforms import v2

from ssl_zoo.training.hardware import processor_name, tune_allocator
from ssl_zoo.views import Views
from ssl_zoo.views.colour import ColorJitter, Grayscale, Normalize
from ssl_zoo.views.geometry import HorizontalFlip, RandomResizedCrop

ROUNDS = 25
MEAN = [0.49, 0.48, 0.45]
STD = [0.25, 0.24, 0.26]
RESULT = Path(__file__).parent / "results" / "views.md"


def pictures(n: int) -> Tensor:
    """Returns (n, 3, 32, 32) uint8 crops of scikit-learn's two photographs."""
    photographs = [torch.tensor(image).permute(2, 0, 1) for image in load_sample_images().images]
    pieces = [photo.unfold(1, 32, 16).unfold(2, 32, 16).flatten(1, 2).transpose(0, 1) for photo in photographs]
    return torch.cat(pieces)[:n].contiguous()


def batched(images: Tensor, interpolation: str) -> Callable[[], object]:
    """Returns a function that computes the views of `images` with ssl_zoo, all in one batch."""
    crop = RandomResizedCrop(32, [0.08, 1.0], interpolation=interpolation)
    views = Views(
        [[crop, HorizontalFlip(0.5), ColorJitter(0.8, 0.8, 0.8, 0.2, 0.8), Grayscale(0.2), Normalize(MEAN, STD)]]
    )
    indices = torch.arange(len(images))
    return lambda: views(images, indices, 0, 0)


def one_by_one(images: Tensor, as_pil: bool) -> Callable[[], object]:
    """Returns a function that computes the views of `images` with torchvision, one by one."""
    transform = v2.Compose(
        [
            v2.RandomResizedCrop(32, (0.08, 1.0), antialias=True),
            v2.RandomHorizontalFlip(0.5),
            v2.RandomApply([v2.ColorJitter(0.8, 0.8, 0.8, 0.2)], 0.8),
            v2.RandomGrayscale(0.2),
            *([v2.PILToTensor()] if as_pil else []),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(MEAN, STD),
        ]
    )
    examples = [v2.functional.to_pil_image(image) for image in images] if as_pil else list(images)
    return lambda: torch.stack([transform(example) for example in examples])


def measure(pipelines: dict[str, tuple[int, Callable[[], object]]]) -> dict[str, list[float]]:
    """Returns views per second of each pipeline in each round, after a warm-up round."""
    rates: dict[str, list[float]] = {name: [] for name in pipelines}
    for _ in range(ROUNDS + 1):
        for name, (views, run) in pipelines.items():
            start = time.process_time()
            run()
            rates[name].append(views / (time.process_time() - start))
    return {name: numbers[1:] for name, numbers in rates.items()}


def main() -> None:
    """Runs the command line."""
    tune_allocator()
    torch.set_num_threads(1)
    pipelines = {
        "torchvision v2, PIL images one by one": (256, one_by_one(pictures(256), as_pil=True)),
        "torchvision v2, uint8 tensors one by one": (256, one_by_one(pictures(256), as_pil=False)),
        "ours, batch 256, bilinear": (256, batched(pictures(256), "bilinear")),
        "ours, batch 512, bilinear": (512, batched(pictures(512), "bilinear")),
        "ours, batch 512, bicubic": (512, batched(pictures(512), "bicubic")),
    }
    rates = measure(pipelines)
    lines = [
        "# Views per second and core: SimCLR on 32-pixel images",
        "",
        f"`python benchmarks/views.py`, {datetime.date.today()}, one thread of {processor_name()}, "
        f"torch {torch.__version__}, torchvision {torchvision.__version__}, Python {platform.python_version()}.",
        f"Crop, flip, colour jitter (p 0.8), grayscale (p 0.2), normalise; {ROUNDS} rounds.",
        "",
        "| pipeline | views/s, median | best |",
        "|---|---|---|",
        *(f"| {name} | {statistics.median(numbers):,.0f} | {max(numbers):,.0f} |" for name, numbers in rates.items()),
        "",
    ]
    print("\n".join(lines))
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text("\n".join(lines))


if __name__ == "__main__":
    main()
