"""What is deleted, what the decoder may see, the loss against a loop, and two processes."""

import math

import pytest
import torch
from torch import Tensor, nn

from ssl_zoo.backbones.text import TextTransformer
from ssl_zoo.distributed import all_reduce_mean, rank, world_size
from ssl_zoo.method import Batch
from ssl_zoo.methods.tsdae import TSDAE
from tests import distributed

VOCABULARY = 40


def network(width: int = 16, causal: bool = False) -> TextTransformer:
    return TextTransformer(
        "eva02_tiny_patch14_224", VOCABULARY, 32, embed_dim=width, depth=1, num_heads=2, causal=causal
    )


def make(delete_ratio: float = 0.6) -> TSDAE:
    return TSDAE(network(), network(causal=True), delete_ratio, pad_id=0)


def rows(count: int = 6, length: int = 20) -> Tensor:
    ids = torch.randint(5, VOCABULARY, (count, length))
    ids[0, 5:] = 0  # padding
    return ids


def batch(*views: Tensor) -> Batch:
    return Batch(list(views), views[0][:, 0], views[0][:, 0])


def test_two_fifths_of_the_tokens_stay_in_order() -> None:
    ids = torch.arange(5, 25).expand(50, -1).clone()
    ids[0, 5:] = 0
    ids[1, 1:] = 0
    left = make().delete(ids)
    assert left.shape == (50, 8)
    assert (left[2:].diff(dim=1) > 0).all()  # ascending, so in order, each once
    assert left[0].count_nonzero() == 2
    assert left[0, :2].gt(0).all()
    assert left[0, 0] < left[0, 1] <= 9
    assert left[1].tolist() == [5, 0, 0, 0, 0, 0, 0, 0]  # at least one token
    shares = left[2:].flatten().bincount(minlength=25)[5:] / 48
    assert shares.mean().item() == pytest.approx(0.4)
    assert 0.1 < shares.min() < shares.max() < 0.7


def test_the_loss_is_that_of_each_token_given_vector_and_past(monkeypatch: pytest.MonkeyPatch) -> None:
    method, ids = make().eval(), rows()
    nn.init.normal_(method.bias)
    deleted = method.delete(ids)
    monkeypatch.setattr(method, "delete", lambda _: deleted)
    surprises = []
    for row, left in zip(ids, deleted, strict=True):
        vector = method.backbone(left[None])
        for t in range(len(row)):
            if row[t] != 0:
                x = torch.cat([vector, method.backbone.embedding(row[:t])])[None]
                full = torch.ones(1, t + 1, dtype=torch.int64)
                hidden = method.decoder.forward_tokens(full, x)[0, -1]
                logits = method.backbone.embedding.weight @ hidden + method.bias
                surprises.append(-logits.log_softmax(0)[row[t]].item())
    told = method(batch(ids), 0.0)
    loss = sum(surprises) / len(surprises)
    assert len(surprises) == 5 * 20 + 5
    assert told["loss"].item() == pytest.approx(loss, rel=1e-4)
    assert told["perplexity"].item() == pytest.approx(math.exp(loss), rel=1e-3)


def test_an_untrained_head_knows_nothing() -> None:
    method = make()
    nn.init.zeros_(method.backbone.embedding.weight)
    assert method(batch(rows()), 0.0)["loss"].item() == pytest.approx(math.log(VOCABULARY), abs=1e-5)


def test_the_vector_matters_and_the_present_token_is_not_seen() -> None:
    method, ids = make().eval(), rows()[1:]
    vector, other = torch.randn(5, 16), ids.clone()
    other[:, 10:] = torch.randint(5, VOCABULARY, (5, 10))
    logits, changed = method.logits(vector, ids), method.logits(vector, other)
    torch.testing.assert_close(changed[:, :11], logits[:, :11])  # place 10 predicts token 10, and sees up to 9
    assert not torch.allclose(changed[:, 11:], logits[:, 11:])
    assert not torch.allclose(method.logits(torch.randn(5, 16), ids)[:, 0], logits[:, 0])


def test_embeddings_are_shared_and_every_parameter_gets_a_gradient() -> None:
    method = make()
    tables = [name for name, p in method.named_parameters() if p.shape[0] == VOCABULARY and p.dim() == 2]
    assert tables == ["backbone.embedding.weight"]
    method(batch(rows(), rows(length=9)), 0.0)["loss"].backward()
    assert all(p.grad is not None for p in method.parameters())


def test_bad_values_are_refused() -> None:
    with pytest.raises(ValueError, match=r"method\.delete_ratio"):
        make(delete_ratio=1.0)
    with pytest.raises(ValueError, match=r"method\.decoder\.causal"):
        TSDAE(network(), network(), 0.6, 0)
    with pytest.raises(ValueError, match=r"method\.decoder\.embed_dim=8"):
        TSDAE(network(), network(8, causal=True), 0.6, 0)
    with pytest.raises(ValueError, match="backbone: Linear"):
        TSDAE(nn.Linear(2, 2), network(causal=True), 0.6, 0)


def shared() -> tuple[Tensor, dict[str, Tensor]]:
    """Loss and gradients as DistributedDataParallel would average them; one process holds the padding."""
    torch.manual_seed(0)
    method, ids = make(), rows()
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
