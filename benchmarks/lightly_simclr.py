"""lightly's CIFAR-10 program for SimCLR on the same pixels, evaluated by ssl_zoo's evaluators and lightly's kNN.

    python benchmarks/lightly_simclr.py --epochs 100 --out FOLDER

Network, projector, loss, transform, optimizer and schedule are those of lightly's published benchmark
(docs/source/getting_started/benchmarks/cifar10_benchmark.py: batches of 512, kNN 84.8 after 200 epochs on lossless
pixels), from its package; the loop is plain PyTorch. Differences to a run of ssl_zoo on the same pixels are due to
ssl_zoo. Writes FOLDER/results.json in the format of a run's results.
"""

import argparse
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from ssl_zoo.training import hardware

hardware.tune_allocator()

import hydra  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from lightly.loss import NTXentLoss  # noqa: E402
from lightly.models import ResNetGenerator  # noqa: E402
from lightly.models.modules import SimCLRProjectionHead  # noqa: E402
from lightly.transforms import SimCLRTransform  # noqa: E402
from lightly.transforms.utils import IMAGENET_NORMALIZE  # noqa: E402
from lightly.utils.benchmarking import knn_predict  # noqa: E402
from PIL import Image  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from torch.utils.data import DataLoader, Dataset  # noqa: E402

from ssl_zoo import build, config  # noqa: E402
from ssl_zoo.evaluators.base import EvalContext, Features, run_evaluators  # noqa: E402
from ssl_zoo.method import Method  # noqa: E402
from ssl_zoo.report import results  # noqa: E402

OUR_DATA = [
    "experiment=simclr_cifar10_100",
    f"data.mean={IMAGENET_NORMALIZE['mean']}",
    f"data.std={IMAGENET_NORMALIZE['std']}",
    "evaluators=[knn,knn_unweighted,linear]",
    "trainer=cpu",
    "logger=csv",
]
"""Overrides for ssl_zoo's data module and evaluators, with the normalisation of lightly's transform."""


class Pictures(Dataset):
    """Applies `transform`, which returns a list of views, to (C, H, W) uint8 pixels as PIL images."""

    def __init__(self, pixels: Tensor, transform: Callable[[Image.Image], list[Tensor]]):
        self.pixels = pixels.cpu()
        self.transform = transform

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> list[Tensor]:
        return self.transform(Image.fromarray(np.asarray(self.pixels[index].permute(1, 2, 0))))


def network() -> tuple[nn.Module, nn.Module]:
    """Returns backbone and projector of the benchmark's SimCLRModel."""
    resnet = ResNetGenerator("resnet-18")
    backbone = nn.Sequential(*list(resnet.children())[:-1], nn.AdaptiveAvgPool2d(1), nn.Flatten())
    backbone.num_features = 512  # type: ignore[assignment]
    return backbone, SimCLRProjectionHead(512, 512, 128)


def lightly_knn(train: Features, test: Features, device: torch.device) -> float:
    """Returns the accuracy of lightly's kNN, k = 200, T = 0.1, on the same features."""
    bank = F.normalize(train.x.to(device), dim=1).T.contiguous()
    labels = train.y.to(device)
    k, classes = min(200, len(labels)), int(labels.max()) + 1
    found = [
        knn_predict(chunk, bank, labels, classes, k, 0.1)[:, 0].cpu()
        for chunk in F.normalize(test.x.to(device), dim=1).split(512)
    ]
    return (torch.cat(found) == test.y).double().mean().item()


def train(options: argparse.Namespace) -> None:
    """Trains from random weights and writes results.json."""
    # Data: ssl_zoo's pixels.
    started = time.time()
    device = torch.device(options.device)
    with hydra.initialize_config_dir(str(config.CONF), version_base="1.3"):
        sizes = [f"data.eval_examples={options.eval_examples or 'null'}", f"data.batch_size={options.batch_size}"]
        cfg = hydra.compose("config", [*OUR_DATA, *sizes, f"seed={options.seed}"])
    hardware.prepare_torch(options.device, options.precision)
    data: Any = build.build_data(cfg)

    # Network, optimizer, schedule, loss and transform: lightly's.
    torch.manual_seed(options.seed)
    backbone, projector = (module.to(device) for module in network())
    parameters = [*backbone.parameters(), *projector.parameters()]
    optimizer = torch.optim.SGD(parameters, lr=6e-2 * options.batch_size / 128, momentum=0.9, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, options.epochs)
    criterion = NTXentLoss()
    transform: Any = SimCLRTransform(input_size=32, cj_strength=0.5, gaussian_blur=0.0)
    loader = DataLoader(
        Pictures(data.pixels["train"], transform),
        options.batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=options.workers,
        persistent_workers=options.workers > 0,
        pin_memory=device.type == "cuda",
    )

    def precision() -> AbstractContextManager:
        return torch.autocast(device.type, dtype=torch.bfloat16, enabled=options.precision == "bf16-mixed")

    # Training.
    steps, begun = 0, time.time()
    for epoch in range(options.epochs):
        for first, second in loader:
            with precision():
                z = [projector(backbone(view.to(device, non_blocking=True))) for view in (first, second)]
            loss = criterion(z[0].float(), z[1].float())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            steps += 1
            if steps == options.steps:
                break
        if steps == options.steps:
            break
        schedule.step()
        if epoch % 10 == 0:
            print(f"epoch {epoch}: loss {loss.item():.3f}, {time.time() - begun:.0f} s", flush=True)
    seconds = time.time() - begun

    # Evaluation and results.
    evaluators = hydra.utils.instantiate(cfg.evaluators, _convert_="all")
    context = EvalContext(Method(backbone), data, "final", precision)
    metrics = run_evaluators(evaluators, context) | {
        "lightly_knn200/top1": lightly_knn(context.train, context.test, device)
    }
    examples = steps * options.batch_size
    record = results.empty_results(
        "completed",
        experiment="lightly_simclr",
        method="simclr",
        backbone="resnet18",
        data="cifar10",
        seed=options.seed,
        budget={"kind": "epochs", "value": options.epochs, "steps": steps, "examples": examples, "seconds": seconds},
        metrics=metrics | {"train/loss": loss.item()},
        speed={"examples_per_second": examples / seconds},
        environment={
            "torch": torch.__version__,
            "device": torch.cuda.get_device_name() if device.type == "cuda" else hardware.processor_name(),
            "precision": options.precision,
        },
        started=started,
        finished=time.time(),
    )
    options.out.mkdir(parents=True, exist_ok=True)
    print(results.write_results(options.out, record))


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--steps", type=int, default=None, help="stop after this many steps")
    parser.add_argument("--eval-examples", type=int, default=None, help="evaluate on this many examples of each split")
    parser.add_argument("--batch-size", type=int, default=512)
    parser.add_argument("--precision", choices=["32-true", "bf16-mixed"], default="bf16-mixed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--workers", type=int, default=8)
    train(parser.parse_args())


if __name__ == "__main__":
    main()
