"""Bytes that a process sends per training step, by method: gradients, BatchNorm, and what the loss gathers.

    python benchmarks/scaling.py              prints the table of docs/scaling.md
    python benchmarks/scaling.py --write      also writes it there

Nothing is timed: everything follows from shapes; two examples pass each network to see its BatchNorm layers.
tests/test_scaling.py counts the same in the collectives of two processes. Letters: W processes, b examples per process,
D width of an embedding, K prototypes, V views.
"""

import argparse
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import hydra
import torch
import torch.distributed as dist
from omegaconf import OmegaConf
from torch import Tensor, nn

from ssl_zoo.config import shipped_conf
from ssl_zoo.conformance.subjects import FACTS
from ssl_zoo.method import Batch, Method

DOCUMENT = Path(__file__).parent.parent / "docs" / "scaling.md"
MARK = "<!-- benchmarks/scaling.py -->"
SIZES = (8, 64, 512)
BATCH = 64
"""Examples per process in the table."""
BANDWIDTH = 25e9
"""Bytes per second that each GPU sends to other nodes in the table: 200 Gb/s."""


class Shapes(NamedTuple):
    """What the bytes of a loss depend on."""

    processes: int
    batch: int
    width: int
    prototypes: int
    patches: int


class Payload(NamedTuple):
    """Bytes of the tensors that one process passes to collectives in a step.

    Attributes:
        gathered: to all_gather, which sends each to all others.
        reduced: to all_reduce.
        broadcast: to broadcast, from rank 0.
    """

    gathered: int = 0
    reduced: int = 0
    broadcast: int = 0

    def plus(self, other: "Payload") -> "Payload":
        """The sum."""
        return Payload(*(a + b for a, b in zip(self, other, strict=True)))

    def sent(self, processes: int) -> float:
        """Bytes that a process sends by ring algorithms, the least for large tensors (Patarasuk and Yuan, 2009)."""
        return (processes - 1) * (self.gathered + 2 * self.reduced / processes) + self.broadcast


def gather_with_gradient(s: Shapes, rows: int, width: int) -> Payload:
    """Rows in float32, and in the backward pass the sum of the gradients of all W * rows."""
    return Payload(gathered=4 * rows * width, reduced=4 * s.processes * rows * width)


LOSSES: dict[str, Callable[[Shapes], Payload]] = {
    "byol": lambda s: Payload(),
    "simclr": lambda s: gather_with_gradient(s, 2 * s.batch, s.width),
    "barlow_twins": lambda s: gather_with_gradient(s, 2 * s.batch, s.width),
    "vicreg": lambda s: gather_with_gradient(s, 2 * s.batch, s.width),
    "nnclr": lambda s: gather_with_gradient(s, 2 * s.batch, s.width).plus(queue(s)),
    "moco": lambda s: queue(s).plus(queue(s)),
    "swav": lambda s: Payload(gathered=2 * 4 * s.batch * s.prototypes),  # the scores of two views, for `sinkhorn`
    "dino": lambda s: Payload(reduced=4 * s.prototypes),
    "mae": lambda s: Payload(broadcast=4 * s.processes * s.batch * s.patches),
}
"""What the loss of each method communicates, with two views; the other methods belong to one of these families."""


def queue(s: Shapes) -> Payload:
    """One embedding of each example and its index, int64, enter the queues of all processes."""
    return Payload(gathered=(4 * s.width + 8) * s.batch)


def gradients(method: nn.Module) -> Payload:
    """All gradients, in float32, once per step."""
    return Payload(reduced=sum(4 * p.numel() for p in method.parameters() if p.requires_grad))


@contextmanager
def counted_batch_norm(method: nn.Module) -> Iterator[Counter[str]]:
    """Counts what BatchNorm will communicate in the forward passes inside: "calls" and "bytes", those of backward too.

    Mean and variance of each channel in float32, and their gradients where there are any.
    """
    found: Counter[str] = Counter()

    def count(norm: nn.modules.batchnorm._BatchNorm, *_: Any) -> None:
        reductions = 4 if torch.is_grad_enabled() else 2
        found["calls"] += reductions * norm.training
        found["bytes"] += reductions * norm.training * 4 * norm.num_features

    norms = [module for module in method.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    handles = [norm.register_forward_hook(count) for norm in norms]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def counted_collectives() -> Iterator[Counter[str]]:
    """Counts the bytes that this process passes to collectives inside, by the names of `Payload`."""
    found: Counter[str] = Counter()
    originals: dict[str, Callable[..., Any]] = {
        "all_gather": dist.all_gather,
        "all_reduce": dist.all_reduce,
        "broadcast": dist.broadcast,
    }
    names = {"all_gather": "gathered", "all_reduce": "reduced", "broadcast": "broadcast"}

    def counting(name: str) -> Callable[..., Any]:
        def call(*arguments: Any, **more: Any) -> Any:
            x: Tensor = arguments[1] if name == "all_gather" else arguments[0]
            found[names[name]] += x.nbytes
            return originals[name](*arguments, **more)

        return call

    for name in originals:
        setattr(dist, name, counting(name))
    try:
        yield found
    finally:
        for name, original in originals.items():
            setattr(dist, name, original)


SETTINGS = {
    "byol": "method.hidden_dim=4096 method.out_dim=256",
    "simclr": "method.out_dim=128",
    "barlow_twins": "method.hidden_dim=8192 method.out_dim=8192",
    "vicreg": "method.hidden_dim=8192 method.out_dim=8192",
    "nnclr": "method.out_dim=256 method.queue_size=98304",
    "moco": "method.out_dim=128 method.queue_size=65536",
    "swav": "method.num_prototypes=3000",
    "dino": "backbone=vit_small method.num_prototypes=65536",
    "mae": "backbone=vit_base method.decoder_dim=512 method.decoder_depth=8 method.decoder_num_heads=16",
}
"""Of the papers on ImageNet; the backbone is a ResNet-50 where none is named."""


def at_paper_scale(name: str) -> tuple[Method, Any]:
    """The method of the paper, and its settings."""
    words = SETTINGS[name].split()
    words = words if any(word.startswith("backbone=") for word in words) else ["backbone=resnet50", *words]
    with shipped_conf():
        cfg = hydra.compose("config", [f"method={name}", *words])
    cfg.facts = OmegaConf.create(FACTS | {"image_size": 224, "half_size": 112, "num_classes": 1000})
    backbone = hydra.utils.instantiate(cfg.backbone, _convert_="all")
    method: Method = hydra.utils.instantiate(cfg.method, backbone=backbone, _convert_="all")
    return method, cfg.method


def table() -> str:
    """The table of docs/scaling.md in Markdown."""
    head = ["method", "gradients", "BatchNorm", *(f"loss, {w} processes" for w in SIZES), f"time, {SIZES[-1]}"]
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    for name, loss in LOSSES.items():
        method, settings = at_paper_scale(name)
        views = [torch.zeros(2, 3, 224, 224) for _ in range(method.min_views)]
        labels = torch.arange(2)
        with counted_batch_norm(method) as norm:  # whose bytes do not depend on the batch
            method(Batch(views, labels, labels), 0.5)
        own = [
            loss(Shapes(w, BATCH, settings.get("out_dim", 0), settings.get("num_prototypes", 0), 14 * 14))
            for w in SIZES
        ]
        common = gradients(method).plus(Payload(reduced=norm["bytes"]))
        seconds = common.plus(own[-1]).sent(SIZES[-1]) / BANDWIDTH
        last = Payload(reduced=norm["bytes"]).sent(SIZES[-1])
        cells = [f"{gradients(method).sent(SIZES[-1]) / 1e6:,.0f} MB", f"{last / 1e6:.1f} MB in {norm['calls']}"]
        cells += [f"{payload.sent(w) / 1e6:,.1f} MB" for payload, w in zip(own, SIZES, strict=True)]
        lines.append("| " + " | ".join([f"`{name}`", *cells, f"{1e3 * seconds:,.0f} ms"]) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write the table into docs/scaling.md")
    options = parser.parse_args()
    made = table()
    print(made)
    if options.write:
        before, _, after = DOCUMENT.read_text().split(MARK)
        DOCUMENT.write_text(f"{before}{MARK}\n{made}{MARK}{after}")


if __name__ == "__main__":
    main()
