"""What is hidden, what is drawn, both losses against loops and transformers, gradients, and two processes."""

import math

import pytest
import torch
from torch import Tensor, nn

from ssl_zoo.backbones.text import TextTransformer
from ssl_zoo.distributed import all_reduce_mean, rank, world_size
from ssl_zoo.functional import mean_over
from ssl_zoo.method import Batch
from ssl_zoo.methods.electra import ELECTRA, Corrupted
from tests import distributed

VOCABULARY, SPECIAL, MASK = 40, 5, 4


def encoder(width: int) -> TextTransformer:
    return TextTransformer("eva02_tiny_patch14_224", VOCABULARY, 32, embed_dim=width, depth=1, num_heads=2)


def make(mask_ratio: float = 0.25, disc_weight: float = 50.0) -> ELECTRA:
    return ELECTRA(encoder(16), encoder(8), mask_ratio, disc_weight, MASK, SPECIAL)


def rows(count: int = 8, length: int = 24) -> Tensor:
    ids = torch.randint(SPECIAL, VOCABULARY, (count, length))
    ids[:, 7] = 3
    ids[0, 4:] = 0  # a short row: 4 tokens and padding
    return ids


def batch(*views: Tensor) -> Batch:
    return Batch(list(views), views[0][:, 0], views[0][:, 0])


def test_a_share_of_ordinary_tokens_is_hidden_and_replaced_by_ordinary_ones() -> None:
    method, ids = make(), rows()
    found = method.corrupt(ids)
    assert found.positions.shape == (8, 6)
    assert found.logits.shape == (8, 6, VOCABULARY)
    assert found.masked.sum(1).tolist() == [1, *[6] * 7]  # round(0.25 * n) of 4 and of 23
    untouched = torch.ones_like(ids, dtype=torch.bool).scatter(1, found.positions, ~found.masked)
    assert torch.equal(found.ids[untouched], ids[untouched])
    assert (found.ids[~untouched] >= SPECIAL).all()


def test_the_generator_sees_masks_where_it_guesses() -> None:
    method, ids = make().eval(), rows()
    found = method.corrupt(ids)
    shown = ids.scatter(1, found.positions, torch.where(found.masked, MASK, ids.gather(1, found.positions)))
    columns = found.positions.flatten()
    again = method.masked_logits(shown, torch.arange(8).repeat_interleave(6), columns)
    torch.testing.assert_close(again.view_as(found.logits), found.logits)


def test_draws_follow_the_generator_and_are_never_special() -> None:
    method, logits = make(), torch.randn(VOCABULARY).mul(2)
    drawn = method.sample(logits.expand(40_000, -1), torch.rand(40_000))
    shares = drawn.bincount(minlength=VOCABULARY) / 40_000
    expected = logits.masked_fill(torch.arange(VOCABULARY) < SPECIAL, -torch.inf).softmax(dim=0)
    torch.testing.assert_close(shares, expected, atol=0.01, rtol=0)
    assert (method.sample(logits.expand(2, -1), torch.tensor([0.0, 1 - 2**-24])) >= SPECIAL).all()


def test_the_loss_is_that_of_the_paper(monkeypatch: pytest.MonkeyPatch) -> None:
    method, ids = make(disc_weight=3.0).eval(), rows()
    found = method.corrupt(ids)
    monkeypatch.setattr(method, "corrupt", lambda _: found)
    verdicts = method.discriminator_head(method.backbone.forward_tokens(found.ids))[..., 0]
    generator, discriminator, right, replaced = [], [], 0, 0
    for b in range(8):
        for place, logits, masked in zip(found.positions[b], found.logits[b], found.masked[b], strict=True):
            if masked:
                generator.append(-logits.log_softmax(0)[ids[b, place]].item())
        for t in range(24):
            if ids[b, t] >= SPECIAL:
                was_replaced = bool(found.ids[b, t] != ids[b, t])
                p = verdicts[b, t].sigmoid().item()  # D(x, t) is 1 - p: the head tells what was replaced
                discriminator.append(-math.log(p if was_replaced else 1 - p))
                right += (p > 0.5) == was_replaced
                replaced += was_replaced
    told = method(batch(ids), 0.0)
    first, second = sum(generator) / len(generator), sum(discriminator) / len(discriminator)
    assert told["generator_loss"].item() == pytest.approx(first, rel=1e-5)
    assert told["discriminator_loss"].item() == pytest.approx(second, rel=1e-5)
    assert told["loss"].item() == pytest.approx(first + 3 * second, rel=1e-5)
    assert told["accuracy"].item() == pytest.approx(right / len(discriminator))
    assert told["replaced"].item() == pytest.approx(replaced / len(discriminator))


def test_transformers_has_the_same_discriminator_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import ElectraConfig, ElectraForPreTraining

    from ssl_zoo.backbones.text import TransformersEncoder

    config = ElectraConfig(
        vocab_size=VOCABULARY,
        embedding_size=8,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=32,
    )
    theirs = ElectraForPreTraining(config).eval()
    method = ELECTRA(TransformersEncoder(theirs.electra, "mean", False, 0), encoder(8), 0.25, 50.0, MASK, SPECIAL)
    head = theirs.discriminator_predictions
    method.discriminator_head = nn.Sequential(head.dense, nn.GELU(), head.dense_prediction)  # type: ignore[assignment]
    ids = torch.randint(SPECIAL, VOCABULARY, (4, 24))
    found = method.eval().corrupt(ids)
    monkeypatch.setattr(method, "corrupt", lambda _: found)
    expected = theirs(found.ids, labels=(found.ids != ids).long()).loss
    torch.testing.assert_close(method(batch(ids), 0.0)["discriminator_loss"], expected.detach())


def test_accidental_hits_count_as_original(monkeypatch: pytest.MonkeyPatch) -> None:
    method, ids = make(), rows()
    found = method.corrupt(ids)
    monkeypatch.setattr(method, "corrupt", lambda _: Corrupted(ids, *found[1:]))
    assert method(batch(ids), 0.0)["replaced"] == 0


def test_an_untrained_method_knows_nothing() -> None:
    method, ids = make(), rows()
    nn.init.zeros_(method.backbone.embedding.weight)
    for parameter in method.discriminator_head.parameters():
        nn.init.zeros_(parameter)
    loss = method(batch(ids), 0.0)["loss"].item()
    assert loss == pytest.approx(math.log(VOCABULARY) + 50 * math.log(2), rel=1e-5)


def test_no_gradient_passes_the_draws_and_every_parameter_gets_one() -> None:
    method, ids = make(), rows()
    method.losses(ids)["loss"].backward()
    assert all(p.grad is not None for p in method.parameters())
    generator = [p for p in method.generator.parameters() if p is not method.backbone.embedding.weight]
    gradients = []
    for method.disc_weight in (1.0, 1e6):
        torch.manual_seed(0)
        gradients.append(torch.autograd.grad(method.losses(ids)["loss"], generator))
    for light, heavy in zip(*gradients, strict=True):
        assert torch.equal(light, heavy)


def test_embeddings_are_shared_and_the_generators_own_are_gone() -> None:
    method = make()
    tables = [name for name, p in method.named_parameters() if p.shape[0] == VOCABULARY and p.dim() == 2]
    assert tables == ["backbone.embedding.weight"]


def test_views_of_different_lengths_are_averaged() -> None:
    method, a, b = make(), rows(), rows(length=12)
    torch.manual_seed(0)
    loss = method(batch(a, b), 0.0)["loss"]
    torch.manual_seed(0)
    torch.testing.assert_close((method.losses(a)["loss"] + method.losses(b)["loss"]) / 2, loss)


def test_bad_values_are_refused() -> None:
    with pytest.raises(ValueError, match=r"method\.mask_ratio"):
        make(mask_ratio=1.0)
    with pytest.raises(ValueError, match=r"method\.disc_weight"):
        make(disc_weight=0.0)
    with pytest.raises(ValueError, match="backbone: Linear"):
        ELECTRA(nn.Linear(2, 2), encoder(8), 0.15, 50.0, MASK, SPECIAL)


def test_it_learns_to_tell_replaced_tokens() -> None:
    """Rows count upwards, so that a replaced token stands out: better than calling all of them original."""
    torch.manual_seed(0)
    method = ELECTRA(encoder(32), encoder(8), 0.2, 50.0, MASK, SPECIAL)
    optimizer = torch.optim.AdamW(method.parameters(), lr=5e-3)
    span = VOCABULARY - SPECIAL
    for _ in range(100):
        ids = SPECIAL + (torch.randint(0, span, (32, 1)) + torch.arange(16)) % span
        told = method(batch(ids), 0.0)
        optimizer.zero_grad()
        told["loss"].backward()
        optimizer.step()
    print({name: round(value.item(), 3) for name, value in told.items()})
    assert told["accuracy"] > 1 - told["replaced"] + 0.05
    assert told["replaced"] < 0.2


def shared() -> tuple[Tensor, dict[str, Tensor]]:
    """Loss and gradients as DistributedDataParallel would average them; one process holds the short row."""
    torch.manual_seed(0)
    method, ids = make(), rows()
    views = [view.chunk(world_size())[rank()] for view in (ids, ids.flip(0))]
    loss = method(batch(*views), 0.0)["loss"]
    loss.backward()
    gradients = {name: all_reduce_mean(p.grad) for name, p in method.named_parameters()}  # type: ignore[arg-type]
    return all_reduce_mean(loss.detach()), gradients


def test_two_processes_equal_one() -> None:
    loss, gradients = shared()
    for their_loss, theirs in distributed.run(2, shared):
        torch.testing.assert_close(their_loss, loss)
        for name, gradient in gradients.items():
            torch.testing.assert_close(theirs[name], gradient, atol=1e-5, rtol=1e-4)


def test_the_mean_over_processes_weighs_entries_equally() -> None:
    values, where = torch.tensor([1.0, 5.0, 9.0]), torch.tensor([True, False, True])
    assert mean_over(values, where) == 5
    assert mean_over(values, torch.zeros(3, dtype=torch.bool)) == 0
    assert mean_over(torch.tensor([1.0, torch.inf, 9.0]), where) == 5  # what is left out may be anything
