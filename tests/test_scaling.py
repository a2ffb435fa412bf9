"""benchmarks/scaling.py computes what the collectives of two processes carry, byte for byte."""

from collections import Counter
from functools import cache

import torch

from benchmarks import scaling
from ssl_zoo.conformance import checks, subjects
from ssl_zoo.distributed import gather_batch_norm, rank, world_size
from ssl_zoo.method import Batch
from tests import distributed

W = 2


@cache
def subject_of(name: str) -> subjects.Subject:
    return subjects.subjects_of(name)[0]


def share(x: torch.Tensor) -> torch.Tensor:
    return x.chunk(world_size())[rank()]


def count_all(names: list[str]) -> dict[str, Counter[str]]:
    """What one step communicates, with every gradient reduced as DDP does."""
    found = {}
    for name in names:
        method = subject_of(name).build(0)
        gather_batch_norm(method)
        views, labels, indices = subject_of(name).batch(0)
        views = (views * 2)[:2] if name != "mae" else views
        batch = Batch([share(view) for view in views], share(labels), share(indices))
        with scaling.counted_collectives() as counted:
            checks.train_step(method, checks.plain_sgd(method), batch, checks.TOTAL_STEPS // 2)
        found[name] = counted
    return found


def computed(name: str) -> scaling.Payload:
    """The same from shapes, on one process."""
    method = subject_of(name).build(0)
    views, labels, indices = subject_of(name).batch(0)
    views = (views * 2)[:2] if name != "mae" else views
    b = subjects.B // W
    with scaling.counted_batch_norm(method) as norm:
        method(Batch([view[:b] for view in views], labels[:b], indices[:b]), 0.5)
    shapes = scaling.Shapes(W, b, *widths(method))
    total = scaling.LOSSES[name](shapes).plus(scaling.gradients(method))
    logged = 4  # the mean of the loss over the processes
    return total.plus(scaling.Payload(reduced=norm["bytes"] + logged))


def widths(method: torch.nn.Module) -> tuple[int, int, int]:
    """D, K and the number of patches, from the layers that have them."""
    linears = [m for n, m in method.named_modules() if isinstance(m, torch.nn.Linear) and n.startswith("projector")]
    prototypes = next((m.weight for n, m in method.named_modules() if n.endswith("prototypes")), torch.empty(0))
    return linears[-1].out_features if linears else 0, len(prototypes), (subjects.SIZE // 4) ** 2


def test_computed_bytes_are_those_of_two_processes() -> None:
    names = list(scaling.LOSSES)
    first, second = distributed.run(W, count_all, names)
    for name in names:
        expected = {key: value for key, value in computed(name)._asdict().items() if value}
        assert dict(first[name]) == expected, name
        assert first[name] == second[name]


def test_a_ring_sends_each_part_to_all_others() -> None:
    assert scaling.Payload(gathered=10).sent(3) == 20  # each process's 10 bytes pass it twice
    assert scaling.Payload(reduced=12).sent(4) == 2 * 12 * 3 / 4
    assert scaling.Payload(reduced=12, gathered=5).sent(1) == 0
