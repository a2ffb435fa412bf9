"""The learning check: what learns passes it, what does not fails it, and the scores are what they say."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ssl_zoo.backbones.text import EncodedTokens, TextEncoder
from ssl_zoo.conformance import learning
from ssl_zoo.conformance.learning import LearningBudget, Trial
from ssl_zoo.evaluators.base import Features
from ssl_zoo.method import Batch, Method
from ssl_zoo.methods.simclr import SimCLR

QUICK = LearningBudget(margin=0.05, steps=30, batch_size=64, lr=2e-3)


class Constant(SimCLR):
    """Its loss depends on nothing, and so it learns nothing."""

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        loss = super().forward(batch, progress)["loss"]
        return {"loss": loss * 0 + 1}


def run(method: type[Method], arguments: dict[str, Any], budget: LearningBudget) -> learning.Finding:
    path = f"{method.__module__}.{method.__name__}"
    return learning.learning_finding("it", [learning.run_class_trial(path, arguments, "conv", 0, budget)], budget)


def test_a_constant_loss_fails_and_simclr_passes() -> None:
    arguments = {"hidden_dim": 64, "out_dim": 32, "temperature": 0.2}
    assert "the margin is 0.05" in run(Constant, arguments, QUICK).failure
    passed = run(SimCLR, arguments, QUICK)
    assert not passed.failure
    assert passed.check == "learns: neighbours, 1 labels"


def test_the_worst_seed_counts() -> None:
    trials = [Trial("a task", 0.5, 0.9, 1.0), Trial("a task", 0.5, 0.52, 1.0)]
    finding = learning.learning_finding("it", trials, QUICK)
    assert finding.seen == pytest.approx(0.02)
    assert finding.failure


def test_neighbours_are_found_among_one_example_each_or_all() -> None:
    x = torch.eye(3).repeat(5, 1) + 0.01 * torch.randn(15, 3)
    y = torch.arange(15) % 3
    judged: Any = SimpleNamespace(train=Features(x, y, y), test=Features(x, y, y))
    assert learning.neighbour_accuracy(judged, 1) == learning.neighbour_accuracy(judged, None) == 1
    judged.test = Features(x, (y + 1) % 3, y)
    assert learning.neighbour_accuracy(judged, 1) == learning.neighbour_accuracy(judged, None) == 0


class Documents:
    """Twelve documents of equal words, one of them too short."""

    splits: dict[str, range] = {"test": range(2, 14)}  # noqa: RUF012
    facts: dict[str, int] = {"pad_id": 0}  # noqa: RUF012

    @property
    def tokens(self) -> "Documents":
        return self

    def lengths(self, documents: np.ndarray) -> np.ndarray:
        return np.where(documents == 5, 10, 2 * learning.PIECE_LENGTH)

    def padded(self, documents: np.ndarray, max_length: int, pad_id: int) -> np.ndarray:
        assert 5 not in documents
        return np.repeat(documents[:, None], max_length, axis=1)


def test_the_next_piece_is_found_among_all_documents() -> None:
    bag = nn.EmbeddingBag(20, 64)
    assert learning.next_piece_accuracy(Method(bag), Documents()) == 1
    nn.init.ones_(bag.weight)  # every piece looks the same: the first one is taken for all
    assert learning.next_piece_accuracy(Method(bag), Documents()) == pytest.approx(1 / 11)


class Neighbour(TextEncoder):
    """Says of each token what its left neighbour is, times `scale`."""

    def __init__(self, scale: float):
        super().__init__("mean", pad_id=0)
        self.embedding, self.scale = nn.Embedding.from_pretrained(torch.eye(20)), scale

    def encode(self, ids: Tensor, embeddings: Tensor | None = None, keep: Tensor | None = None) -> EncodedTokens:
        x = self.embedding(ids) if embeddings is None else embeddings
        return EncodedTokens(x.mean(dim=1), self.scale * x.roll(1, dims=1), [])


class Follows(Neighbour):
    """Says of each token whether it follows its left and precedes its right neighbour, times `scale`."""

    def encode(self, ids: Tensor, embeddings: Tensor | None = None, keep: Tensor | None = None) -> EncodedTokens:
        follows = ((ids - ids.roll(1, dims=1) - 1) % 15 == 0).float()
        both = torch.stack([follows, follows.roll(-1, dims=1), follows * follows.roll(-1, dims=1)], dim=2)
        return EncodedTokens(both.mean(dim=1), self.scale * both, [])


class Counting:
    """Rows that count up from a token of their own."""

    batch_size, facts = 64, {"num_special": 5}

    def heldout_rows(self) -> Tensor:
        return 5 + (torch.randint(15, (64, 1)) + torch.arange(32)) % 15

    def train_rows_from(self, start_batch: int) -> Iterator[SimpleNamespace]:
        while True:
            yield SimpleNamespace(rows=self.heldout_rows())


@pytest.mark.parametrize(("scale", "low", "high"), [(1.0, 0.7, 1.0), (0.0, -0.1, 0.01)])
def test_a_probe_finds_hidden_tokens_where_the_encoder_knows_them(scale: float, low: float, high: float) -> None:
    torch.manual_seed(0)
    method = Method(Neighbour(scale))
    method.mask_token = nn.Parameter(torch.zeros(20))
    assert low < learning.probe_masked_tokens(method, Counting()) < high


@pytest.mark.parametrize(("scale", "low", "high"), [(1.0, 0.4, 1.0), (0.0, -0.1, 0.01)])
def test_a_probe_finds_replaced_tokens_where_the_encoder_compares(scale: float, low: float, high: float) -> None:
    torch.manual_seed(0)
    assert low < learning.probe_replaced_tokens(Method(Follows(scale)), Counting()) < high
