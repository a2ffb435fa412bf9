"""A batch in chunks has loss and gradient of the whole batch, or is refused; accumulation without them is told."""

import copy
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.parallel import DistributedDataParallel

from ssl_zoo.conformance import subjects
from ssl_zoo.distributed import gather_batch_norm, rank, world_size
from ssl_zoo.method import Batch, Method
from ssl_zoo.training import grad_cache
from tests.conftest import Ended
from tests.distributed import run as on_processes
from tests.test_learner import Toy, fit

TOKENS = """clm data2vec data2vec_text dinov2 electra ibot ijepa mae maskfeat mlm msn simmim tsdae"""
"""Methods that mask or predict tokens."""
COMPARED = """all4one barlow_twins clip dcl emp_ssl lejepa mmcr mocov3 nnclr siglip simclr simcse supcon swav tico
vibcreg vicreg wmse"""
"""Methods with negatives, statistics or assignments of the batch, by their papers."""
ROWS = 5  # no divisor of the 16 examples


def step(method: Method, batch: Batch, rows: int | None) -> list[Tensor]:
    """The loss, all gradients and the state after one step without an optimizer."""
    torch.manual_seed(0)
    with nullcontext() if rows is None else grad_cache.in_chunks(method, rows):
        loss = method(batch, 0.5)["loss"]
    loss.backward()
    gradients = [p.grad for p in method.parameters() if p.grad is not None]
    return [loss.detach(), *gradients, *(value for value in method.state_dict().values() if value.is_floating_point())]


def assert_equal(found: list[Tensor], wanted: list[Tensor]) -> None:
    largest = max(float(x.abs().max()) for x in wanted)
    for a, b in zip(found, wanted, strict=True):
        assert float((a - b).abs().max()) <= 1e-5 * min(largest, 100)


@pytest.mark.parametrize("name", subjects.method_names())
def test_chunks_have_loss_and_gradient_of_the_batch(name: str) -> None:
    subject = subjects.subjects_of(name)[-1]  # the last kind of backbone has no BatchNorm
    method, batch = subject.build(1), subject.batch(0)
    assert grad_cache.compares_examples(method, batch) == (name in COMPARED.split())
    if name in TOKENS.split():
        with pytest.raises(
            ValueError, match=f"trainer.grad_cache=5: the loss of {type(method).__name__} is computed from"
        ):
            grad_cache.check_loss(method, batch, ROWS)
        return
    grad_cache.check_loss(method, batch, ROWS)
    grad_cache.check_networks(method, ROWS)
    plain = step(copy.deepcopy(method), batch, None)
    seen = []
    linear = [m for network in grad_cache.backbones_of(method) for m in network.modules() if isinstance(m, nn.Linear)]
    for layer in linear:
        layer.register_forward_hook(lambda _, inputs, output: seen.append(len(inputs[0])))
    assert_equal(step(method, batch, ROWS), plain)
    assert max(seen) == ROWS
    assert all("forward" not in vars(network) for network in method.modules())


def test_dropout_draws_the_same_numbers_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    method, batch = Toy(), Batch([torch.randn(4, 3)], torch.zeros(4, dtype=torch.int64), torch.arange(4))
    method.backbone = nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.5), nn.Linear(8, 4))
    cached = step(copy.deepcopy(method), batch, 3)
    monkeypatch.setattr(grad_cache, "checkpoint", lambda forward, x, use_reentrant: forward(x))  # nothing is forgotten
    assert_equal(cached, step(method, batch, 3))


def simclr() -> tuple[Method, Batch]:
    subject = subjects.subjects_of("simclr")[1]
    return subject.build(1), subject.batch(0)


def kept_between_passes(rows: int | None) -> int:
    """Bytes of the tensors that wait for the backward pass."""
    method, batch = simclr()
    sizes = []
    note = saved_tensors_hooks(lambda x: sizes.append(x.nbytes * (x.grad_fn is not None)), lambda _: None)
    with note, nullcontext() if rows is None else grad_cache.in_chunks(method, rows):
        method(batch, 0.5)
    return sum(sizes)


def test_no_activation_of_the_backbone_waits_for_the_backward_pass() -> None:
    assert kept_between_passes(ROWS) < kept_between_passes(None) / 5  # the heads keep theirs


def _share_of_a_step() -> list[Tensor]:
    """Loss and gradient of this process's share of the batch, as Lightning's strategy "ddp" computes them."""
    method, batch = simclr()
    gather_batch_norm(method)  # of the projector
    mine = [part.chunk(world_size())[rank()] for part in (*batch.views, batch.labels, batch.indices)]
    wrapped = DistributedDataParallel(method)
    with grad_cache.in_chunks(method, 3):
        loss = wrapped(Batch(mine[:-2], *mine[-2:]), 0.5)["loss"]
    loss.backward()
    return [loss.detach(), *(p.grad for p in method.parameters() if p.grad is not None)]


def test_two_processes_with_chunks_equal_one_without() -> None:
    method, batch = simclr()
    loss = method(batch, 0.5)["loss"]
    loss.backward()
    gradients = [p.grad for p in method.parameters() if p.grad is not None]
    first, second = on_processes(2, _share_of_a_step)
    torch.testing.assert_close((first[0] + second[0]) / 2, loss.detach())
    for found in (first[1:], second[1:]):
        assert_equal(found, gradients)


def test_a_run_in_chunks_is_the_run(tmp_path: Path) -> None:
    plain = fit(tmp_path, steps=3)
    chunked = fit(tmp_path, steps=3, callbacks=[grad_cache.GradCache(3)])
    assert "forward" not in vars(chunked.method.backbone)
    for mine, theirs in zip(chunked.method.parameters(), plain.method.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs)


def test_batch_norm_is_refused() -> None:
    method = subjects.subjects_of("simclr")[0].build(1)
    with pytest.raises(
        ValueError, match=r"trainer.grad_cache=4: the backbone has BatchNorm.*[+]backbone.norm_layer=groupnorm"
    ):
        grad_cache.check_networks(method, 4)


def test_the_command_line(cli: Callable[..., Ended]) -> None:
    """A run in chunks that accumulates as well: it trains, and tells which negatives it lacks."""
    small = ["backbone=vit_tiny", "+backbone.depth=1", "+backbone.embed_dim=12", "data.batch_size=8", "budget.steps=2"]
    settings = ["logger=csv", "evaluators=[]", "trainer=cpu", "trainer.on_collapse=null"]
    ended = cli(*small, *settings, "trainer.grad_cache=3", "trainer.accumulate_grad_batches=2")
    assert ended.status == 0, ended.err
    assert "compares only those of the same 8. To compare all 16: data.batch_size=16 trainer.grad_cache=8" in ended.out


@pytest.mark.parametrize(("name", "warnings"), [("byol", 0), ("simclr", 1)])
def test_accumulation_is_told_where_examples_are_compared(
    name: str, warnings: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = []
    monkeypatch.setattr(grad_cache.log, "warning", lambda *message: said.append(message))
    subject = subjects.subjects_of(name)[1]
    grad_cache.warn_of_accumulation(subject.build(1), subject.batch(0), 4, 16)
    assert len(said) == warnings
    grad_cache.warn_of_accumulation(subject.build(1), subject.batch(0), 1, 16)
    assert len(said) == warnings
