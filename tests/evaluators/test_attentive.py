from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ssl_zoo.backbones.text import TextTransformer
from ssl_zoo.evaluators.attentive import Attentive, AttentiveHead
from ssl_zoo.evaluators.linear import Linear
from tests.evaluators.fakes import FakeData, judge

SETTINGS: dict[str, Any] = {
    "lr": [1e-4, 1e-2], "epochs": 12, "batch_size": 50, "weight_decay": 0.0, "heads": 4, "max_train": 500,
    "validation": 0.2,
}  # fmt: skip


class Grid(nn.Module):
    """An encoder that returns images (B, D, 3, 3) as its features, and their mean as its vector."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))

    def forward_features(self, x: Tensor) -> Tensor:
        return x


def needles(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Nine tokens of width 8: the marked one names the class; each class is named three times."""
    rng = torch.Generator().manual_seed(seed)
    y = torch.randint(3, (count,), generator=rng)
    x = torch.zeros(count, 9, 8)
    for row, label in enumerate(y):
        named = torch.arange(9) % 3
        named = named[torch.randperm(9, generator=rng)]
        x[row, torch.arange(9), named] = 1.0
        x[row, (named == label).nonzero()[0], 4] = 1.0  # the mark
    x += 0.05 * torch.randn(x.shape, generator=rng)
    return x.transpose(1, 2).reshape(count, 8, 3, 3), y


def test_it_finds_what_the_mean_of_the_tokens_has_lost() -> None:
    context = judge(FakeData(needles(300, 0), needles(100, 1)), encoder=Grid())
    found = Attentive(**SETTINGS)(context)
    assert found["attentive/top1"] > 0.9
    assert found["attentive/top1"].n == 100  # type: ignore[attr-defined]
    assert Linear([1e-2], 0.2)(context)["linear/top1"] < 0.6


def test_attention_is_the_softmax_over_the_valid_tokens() -> None:
    torch.manual_seed(0)
    head = AttentiveHead(6, 1, 3).double()
    tokens, valid = torch.randn(2, 4, 6).double(), torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]]).bool()
    wq, wk, wv = head.attention.in_proj_weight.chunk(3)
    for row in range(2):
        x = head.norm(tokens[row][valid[row]])
        scores = (x @ wk.T) @ (wq @ head.query[0, 0]) / 6**0.5
        pooled = head.attention.out_proj(scores.softmax(0) @ (x @ wv.T))
        assert torch.allclose(head(tokens, valid)[row], head.classifier(pooled))
    changed = tokens.clone()
    changed[1, 2:] = 100.0
    assert torch.equal(head(tokens, valid), head(changed, valid)), "padding is not attended to"


def test_texts_of_different_lengths_are_padded_and_the_sample_is_fixed() -> None:
    class Texts(FakeData):
        def eval_batches(self, split: str, batch_size: int) -> Any:
            for batch in super().eval_batches(split, 2):
                length = 3 + int(batch.indices[0]) % 4
                yield batch._replace(views=[batch.views[0][:, :length]])

    ids, y = torch.randint(2, 20, (10, 6), generator=torch.Generator().manual_seed(0)), torch.arange(10) % 2
    encoder = TextTransformer("vit_tiny_patch16_224", 20, 8, depth=1, embed_dim=16, num_heads=2)
    context = judge(Texts((ids, y), (ids, y)), encoder=encoder)
    probe = Attentive(**SETTINGS | {"epochs": 1, "max_train": 7})
    tokens, valid, labels = probe._tokens(context)
    assert tokens.shape == (7, 5, 16)
    assert not tokens[~valid].any()
    assert len(labels) == 7
    found = probe(context)
    assert found["attentive/top1"].n == 10  # type: ignore[attr-defined]
    assert found == probe(context), "equal calls give an equal result"


def test_an_encoder_without_tokens_is_refused() -> None:
    x = torch.randn(8, 4)
    with pytest.raises(ValueError, match=r"evaluators=\[attentive\] needs the tokens .* Identity gives no features"):
        Attentive(**SETTINGS)(judge(FakeData((x, torch.arange(8) % 2), (x, torch.arange(8) % 2))))


@pytest.mark.parametrize(
    ("key", "value"),
    [("lr", []), ("lr", [-1]), ("epochs", 0), ("max_train", 1), ("weight_decay", -1), ("validation", 0)],
)
def test_settings_outside_their_range_are_refused(key: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"evaluators\.attentive\.{key}"):
        Attentive(**SETTINGS | {key: value})
