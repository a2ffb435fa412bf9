"""Augmentation alone: SimCLR views of 32-pixel images per second and core, ours against torchvision one by one.

Run `python benchmarks/views.py`; prints a table and writes it to benchmarks/results/views.md. Contenders take turns in
every round, so that other work on the machine falls on all alike; time is the processor time of the one thread.
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
MEAN, STD = [0.49, 0.48, 0.45], [0.25, 0.24, 0.26]
RESULT = Path(__file__).parent / "results" / "views.md"


def pictures(n: int) -> Tensor:
    """(n, 3, 32, 32) uint8 pieces of scikit-learn's two photographs."""
    photographs = [torch.tensor(image).permute(2, 0, 1) for image in load_sample_images().images]
    pieces = [photo.unfold(1, 32, 16).unfold(2, 32, 16).flatten(1, 2).transpose(0, 1) for photo in photographs]
    return torch.cat(pieces)[:n].contiguous()


def ours(images: Tensor, interpolation: str) -> Callable[[], object]:
    crop = RandomResizedCrop(32, [0.08, 1.0], interpolation=interpolation)
    views = Views(
        [[crop, HorizontalFlip(0.5), ColorJitter(0.8, 0.8, 0.8, 0.2, 0.8), Grayscale(0.2), Normalize(MEAN, STD)]]
    )
    indices = torch.arange(len(images))
    return lambda: views(images, indices, 0, 0)


def theirs(images: Tensor, as_pil: bool) -> Callable[[], object]:
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


def measure(contenders: dict[str, tuple[int, Callable[[], object]]]) -> dict[str, list[float]]:
    """Views a second of each contender in each round, after one round of warming up."""
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(ROUNDS + 1):
        for name, (views, run) in contenders.items():
            start = time.process_time()
            run()
            rates[name].append(views / (time.process_time() - start))
    return {name: numbers[1:] for name, numbers in rates.items()}


def main() -> None:
    tune_allocator()
    torch.set_num_threads(1)
    contenders = {
        "torchvision v2, PIL images one by one": (256, theirs(pictures(256), as_pil=True)),
        "torchvision v2, uint8 tensors one by one": (256, theirs(pictures(256), as_pil=False)),
        "ours, batch 256, bilinear": (256, ours(pictures(256), "bilinear")),
        "ours, batch 512, bilinear": (512, ours(pictures(512), "bilinear")),
        "ours, batch 512, bicubic": (512, ours(pictures(512), "bicubic")),
    }
    rates = measure(contenders)
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
