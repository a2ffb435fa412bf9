"""SimCLR by another framework's parts under our recipe: lightly's views, projector and loss, torchvision on PIL images.

    python benchmarks/parity.py --seeds 0 1

Data, backbone, optimizer, schedule, budget and evaluation are those of experiment=table_images, so that what differs
from the SimCLR row of benchmarks/results/accuracy.md is what a framework adds. Prints one line a seed.
"""

import argparse
from collections.abc import Callable
from typing import Any

from ssl_zoo import hardware

hardware.tune_allocator()

import hydra  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from lightly.loss import NTXentLoss  # noqa: E402
from lightly.models.modules import SimCLRProjectionHead  # noqa: E402
from lightly.transforms import SimCLRTransform  # noqa: E402
from PIL import Image  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from torch.utils.data import DataLoader, Dataset  # noqa: E402

from ssl_zoo import build  # noqa: E402
from ssl_zoo.evaluators.judged import Judged, evaluate  # noqa: E402
from ssl_zoo.method import Method  # noqa: E402


class Pictures(Dataset):
    """(C, H, W) uint8 pixels as PIL images, through `transform`, which gives a list of views."""

    def __init__(self, pixels: Tensor, transform: Callable[[Image.Image], list[Tensor]]):
        self.pixels, self.transform = pixels, transform

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> list[Tensor]:
        return self.transform(Image.fromarray(np.asarray(self.pixels[index].permute(1, 2, 0))))


def train(seed: int) -> dict[str, float]:
    """The metrics of one run."""
    cfg = hydra.compose("config", ["experiment=table_images", "method=simclr", "logger=csv", f"seed={seed}"])
    hardware.prepare_torch("cpu", "bf16-mixed")
    data = build.build_data(cfg)
    transform: Any = SimCLRTransform(  # conf/views/mild.yaml
        32,
        cj_prob=0.8,
        cj_strength=1.0,
        cj_bright=0.4,
        cj_contrast=0.4,
        cj_sat=0.2,
        cj_hue=0.1,
        min_scale=0.2,
        gaussian_blur=0.0,
        normalize={"mean": list(cfg.data.mean), "std": list(cfg.data.std)},
    )
    method = build.build_method(cfg)  # for its backbone, so that weights at the start are the same
    backbone, projector = method.backbone, SimCLRProjectionHead(method.backbone.num_features, 2048, 256)
    network, criterion = nn.Sequential(backbone, projector), NTXentLoss(temperature=cfg.method.temperature)
    decayed = [p for p in network.parameters() if p.ndim > 1]
    spared = [p for p in network.parameters() if p.ndim <= 1]
    optimizer = hydra.utils.instantiate(cfg.optimizer)([{"params": decayed}, {"params": spared, "weight_decay": 0.0}])
    schedule = hydra.utils.instantiate(cfg.schedule)
    batch, steps = cfg.data.batch_size, -(-cfg.budget.examples // cfg.data.batch_size)
    torch.manual_seed(seed)
    loader = DataLoader(Pictures(data.pixels["train"], transform), batch, shuffle=True, drop_last=True)
    network.train()
    for step, (first, second) in enumerate(loader):
        if step == steps:
            break
        for group in optimizer.param_groups:
            group["lr"] = cfg.optimizer.lr * schedule(step / steps)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            z = network(torch.cat([first, second]).to(memory_format=torch.channels_last))
            loss = criterion(*z.float().chunk(2))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    judges = hydra.utils.instantiate(cfg.evaluators, _convert_="all")
    judged = Judged(Method(backbone), data, "final", lambda: torch.autocast("cpu", dtype=torch.bfloat16))
    return evaluate(judges, judged) | {"loss": loss.item(), "steps": float(step)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    with hydra.initialize_config_dir(str(build.CONF), version_base="1.3"):
        for seed in parser.parse_args().seeds:
            metrics = train(seed)
            print(f"seed {seed}:", {name: round(value, 4) for name, value in metrics.items()}, flush=True)


if __name__ == "__main__":
    main()
