"""Token probes find what features hold and nothing else, on rows that neither encoder nor classifier has seen."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ssl_zoo.backbones.text import EncodedTokens, TextEncoder
from ssl_zoo.evaluators.base import EvalContext
from ssl_zoo.evaluators.linear import Linear
from ssl_zoo.evaluators.proportion import Proportion
from ssl_zoo.evaluators.token_probe import TokenProbe, likeliest, shifted
from ssl_zoo.method import Method

SPECIAL, VOCAB = 5, 25


class FakeText:
    """Rows of independent tokens, each followed by itself plus one with a probability of 60 %; [CLS] and padding."""

    def __init__(self, count: int = 40, length: int = 32) -> None:
        rng = torch.Generator().manual_seed(0)
        rows = torch.randint(SPECIAL, VOCAB, (count, length), generator=rng)
        for column in range(2, length):
            follows = torch.rand(count, generator=rng) < 0.6
            after = (rows[:, column - 1] - SPECIAL + 1) % (VOCAB - SPECIAL) + SPECIAL
            rows[:, column] = after.where(follows, rows[:, column])
        rows[:, 0] = 2
        rows[::3, -4:] = 0
        self.rows, self.facts = rows, {"num_special": SPECIAL, "has_labels": False}

    def heldout_rows(self) -> Tensor:
        return self.rows


class Tells(TextEncoder):
    """The feature of a token is the embedding of the token at `offset`; None: noise."""

    def __init__(self, offset: int | None) -> None:
        super().__init__("mean", 0)
        self.embedding = nn.Embedding(VOCAB, 24)
        self.offset = offset
        self.seen: list[Tensor] = []

    def encode(self, ids: Tensor, embeddings: Tensor | None = None, keep: Tensor | None = None) -> EncodedTokens:
        assert not self.training
        tokens = self.embedding(ids if self.offset is None else ids.roll(-self.offset, dims=1))
        if self.offset is None:
            tokens = torch.randn(tokens.shape, generator=torch.Generator().manual_seed(len(ids)))
        return EncodedTokens(tokens.mean(dim=1), tokens, [])


def probe(**changes: Any) -> TokenProbe:
    settings = {"num_tokens": 20, "max_train": 400, "max_test": 200, "max_rows": 100, "batch_size": 16} | changes
    return TokenProbe(Linear([1e-2], 0.2), **settings)


def judged(offset: int | None, data: Any = None, phase: Any = "final") -> dict[str, float]:
    torch.manual_seed(0)
    return probe()(EvalContext(Method(Tells(offset)), data or FakeText(), phase))


@pytest.mark.parametrize(("offset", "told"), [(0, "token"), (-1, "previous"), (1, "next")])
def test_what_a_feature_holds_is_found(offset: int, told: str) -> None:
    found = judged(offset)
    assert found[f"token_probe/{told}/top1"] > 0.97
    if told == "token":  # from the token alone its neighbours are as likely as the text makes them
        for name in ("previous", "next"):
            value, alone = found[f"token_probe/{name}/top1"], found[f"token_probe/{name}/from_token/top1"]
            assert 0.5 < alone < 0.75
            assert abs(value - alone) < 0.1
    else:
        assert found["token_probe/token/top1"] < 0.8


def test_noise_tells_nothing() -> None:
    found = judged(None)
    assert found.keys() == {
        *(f"token_probe/{name}/top1" for name in ("token", "previous", "next")),
        *(f"token_probe/{name}/from_token/top1" for name in ("previous", "next")),
    }
    assert all(found[f"token_probe/{name}/top1"] < 0.2 for name in ("token", "previous", "next"))
    assert all(isinstance(value, Proportion) and value.n == 200 and value.right is None for value in found.values())
    assert judged(None) == found
    assert judged(None, phase="periodic") == {}


def test_targets_are_ordinary_neighbours() -> None:
    rows = torch.tensor([[2, 7, 8, 3, 9, 0]])
    ordinary = rows >= SPECIAL
    assert shifted(rows, ordinary, 0).tolist() == [[-1, 7, 8, -1, 9, -1]]
    assert shifted(rows, ordinary, -1).tolist() == [[-1, -1, 7, 8, -1, 9]]
    assert shifted(rows, ordinary, 1).tolist() == [[7, 8, -1, 9, -1, -1]]


def test_the_likeliest_neighbour_is_that_of_a_count() -> None:
    tokens, targets = torch.tensor([5, 5, 5, 6, 6, 7]), torch.tensor([9, 9, 8, 8, 8, 8])
    assert likeliest(tokens, targets, torch.tensor([5, 6, 30, 2])).tolist() == [9, 8, 8, 8]


def test_tested_rows_are_not_fitted_on() -> None:
    data = FakeText()
    before = judged(0, data)
    last = int(0.8 * len(data.rows))
    data.rows[last:] = data.rows[last:].flip(1).masked_fill(data.rows[last:].flip(1) == 2, 3)  # other order of words
    after = judged(0, data)
    assert after["token_probe/token/top1"] > 0.97
    assert after["token_probe/next/top1"] < before["token_probe/next/top1"] - 0.3


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match=r"evaluators\.token_probe\.num_tokens=1: give at least 2"):
        probe(num_tokens=1)
    with pytest.raises(ValueError, match="this data is not text"):
        judged(0, data=object())
    few = FakeText(count=2)
    few.rows[1:] = 0
    with pytest.raises(ValueError, match="too little text was held out"):
        judged(0, data=few)
    context = EvalContext(Method(nn.Linear(2, 2)), FakeText(), "final")
    with pytest.raises(ValueError, match=r"evaluators=\[token_probe\] needs the tokens of an encoder"):
        probe()(context)
