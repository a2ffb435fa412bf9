"""Next-token loss against a loop and transformers, the view of the past only, padding, and two processes."""

import math

import pytest
import torch
from torch import Tensor, nn

from ssl_zoo.backbones.text import TextTransformer
from ssl_zoo.distributed import all_reduce_mean, rank, world_size
from ssl_zoo.method import Batch
from ssl_zoo.methods.clm import CLM
from tests import distributed

VOCABULARY = 40


def encoder(causal: bool = True, trunk: str = "eva02_tiny_patch14_224") -> TextTransformer:
    return TextTransformer(trunk, VOCABULARY, 32, embed_dim=16, depth=2, num_heads=2, causal=causal)


def rows(count: int = 6, length: int = 12) -> Tensor:
    ids = torch.randint(5, VOCABULARY, (count, length))
    ids[0, 4:] = 0  # padding
    return ids


def batch(*views: Tensor) -> Batch:
    return Batch(list(views), views[0][:, 0], views[0][:, 0])


def test_the_loop_over_equation_1() -> None:
    method, ids = CLM(encoder()).eval(), rows()
    nn.init.normal_(method.bias)
    surprises, hits = [], 0
    for row in ids:
        for t in range(1, len(row)):
            if row[t] != 0:
                hidden = method.backbone.forward_tokens(row[None, :t])[0, -1]
                logits = method.backbone.embedding.weight @ hidden + method.bias
                surprises.append(-logits.log_softmax(0)[row[t]].item())
                hits += int(logits.argmax() == row[t])
    told = method(batch(ids), 0.0)
    loss = sum(surprises) / len(surprises)
    assert len(surprises) == 5 * 11 + 3
    assert told["loss"].item() == pytest.approx(loss, rel=1e-4)
    assert told["perplexity"].item() == pytest.approx(math.exp(loss), rel=1e-3)
    assert told["accuracy"].item() == pytest.approx(hits / len(surprises))


def test_transformers_has_the_same_loss() -> None:
    from transformers.loss.loss_utils import ForCausalLMLoss

    method, ids = CLM(encoder()).eval(), rows()
    theirs = ForCausalLMLoss(method.next_logits(ids), ids.masked_fill(ids == 0, -100), VOCABULARY)
    torch.testing.assert_close(method(batch(ids), 0.0)["loss"], theirs)


@pytest.mark.parametrize("trunk", ["eva02_tiny_patch14_224", "vit_tiny_patch16_224"])
def test_the_future_is_not_seen(trunk: str) -> None:
    method, ids = CLM(encoder(trunk=trunk)).eval(), rows()
    other = ids.clone()
    other[:, 6:] = torch.randint(5, VOCABULARY, (6, 6))
    torch.testing.assert_close(method.next_logits(other)[1:, :6], method.next_logits(ids)[1:, :6])
    assert not torch.allclose(method.next_logits(other)[1:, 6:], method.next_logits(ids)[1:, 6:])


def test_an_untrained_head_knows_nothing() -> None:
    method = CLM(encoder())
    nn.init.zeros_(method.backbone.embedding.weight)
    assert method(batch(rows()), 0.0)["loss"].item() == pytest.approx(math.log(VOCABULARY), abs=1e-5)


def test_more_padding_changes_nothing_and_every_parameter_gets_a_gradient() -> None:
    method, ids = CLM(encoder()), rows()
    loss = method(batch(ids), 0.0)["loss"]
    padded = torch.cat([ids, torch.zeros(6, 4, dtype=torch.int64)], dim=1)
    torch.testing.assert_close(method(batch(padded), 0.0)["loss"], loss)
    torch.testing.assert_close(method(batch(ids, padded), 0.0)["loss"], loss)
    loss.backward()
    assert all(p.grad is not None for p in method.parameters())


@pytest.mark.parametrize("backbone", [nn.Linear(2, 2), encoder(causal=False)])
def test_an_encoder_that_sees_the_future_is_refused(backbone: nn.Module) -> None:
    with pytest.raises(ValueError, match=r"backbone\.causal"):
        CLM(backbone)


def shared() -> tuple[Tensor, dict[str, Tensor]]:
    """Loss and gradients as DistributedDataParallel would average them; one process holds the padding."""
    torch.manual_seed(0)
    method, ids = CLM(encoder()), rows()
    loss = method(batch(ids.chunk(world_size())[rank()]), 0.0)["loss"]
    loss.backward()
    gradients = {name: all_reduce_mean(p.grad) for name, p in method.named_parameters()}  # type: ignore[arg-type]
    return all_reduce_mean(loss.detach()), gradients


def test_two_processes_equal_one() -> None:
    loss, gradients = shared()
    for their_loss, theirs in distributed.run(2, shared):
        torch.testing.assert_close(their_loss, loss)
        for name, gradient in gradients.items():
            torch.testing.assert_close(theirs[name], gradient, atol=1e-5, rtol=1e-4)
