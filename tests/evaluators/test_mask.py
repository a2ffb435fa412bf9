import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ssl_zoo.evaluators.base import EvalContext
from ssl_zoo.evaluators.mask import Mask, choose_masked
from ssl_zoo.method import Method

MASK, SPECIAL, VOCAB = 4, 5, 50


class FakeText:
    def __init__(self, rows: Tensor):
        self.rows, self.facts = rows, {"mask_id": MASK, "num_special": SPECIAL, "has_labels": False}

    def heldout_rows(self) -> Tensor:
        return self.rows


class Oracle(Method):
    """Knows the text: gives each hidden token `certainty` more logit than any other; notes what it was shown."""

    def __init__(self, rows: Tensor, certainty: float):
        super().__init__(nn.Linear(1, 1))
        self.rows, self.certainty, self.seen = rows, certainty, []

    def masked_logits(self, ids: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        assert not self.training
        assert not torch.is_grad_enabled()
        start = sum(len(ids) for ids, _, _ in self.seen)
        self.seen.append((ids, rows, columns))
        truth = self.rows[start : start + len(ids)][rows, columns]
        return self.certainty * nn.functional.one_hot(truth, VOCAB).float()


def text(rows: int = 40, length: int = 64) -> Tensor:
    """Rows that begin with [CLS], hold a few [SEP] and end in padding."""
    ids = torch.randint(SPECIAL, VOCAB, (rows, length), generator=torch.Generator().manual_seed(0))
    ids[:, 0], ids[:, 20::20] = 2, 3
    for row in range(rows):
        ids[row, length - row % 7 :] = 0
    return ids


def judged(method: nn.Module, data: Any) -> EvalContext:
    return EvalContext(method, data, "final")


def test_exact_share_of_ordinary_tokens_in_every_row() -> None:
    rows = text()
    hidden = choose_masked(rows, SPECIAL, 0.15)
    ordinary = rows >= SPECIAL
    assert not (hidden & ~ordinary).any()
    assert hidden.sum(1).tolist() == [round(0.15 * int(n)) for n in ordinary.sum(1)]
    assert torch.equal(hidden, choose_masked(rows, SPECIAL, 0.15)), "the same in every run"


def test_a_token_is_masked_and_one_is_seen_where_there_are_two() -> None:
    rows = torch.zeros(4, 8, dtype=torch.int64)
    rows[1, 0], rows[2, :2], rows[3] = 9, 9, 9
    assert choose_masked(rows, SPECIAL, 0.01).sum(1).tolist() == [0, 0, 1, 1]
    assert choose_masked(rows, SPECIAL, 0.99).sum(1).tolist() == [0, 0, 1, 7]


def test_every_position_is_hidden_alike() -> None:
    hidden = choose_masked(torch.full((4000, 20), 9), SPECIAL, 0.15)
    assert hidden.float().mean(0).sub(0.15).abs().max() < 0.03


def test_hidden_tokens_are_shown_as_mask_and_all_others_as_they_are() -> None:
    rows = text()
    method = Oracle(rows, 1.0)
    Mask(0.15, max_rows=100, batch_size=7)(judged(method, FakeText(rows)))
    shown = torch.cat([ids for ids, _, _ in method.seen])
    hidden = choose_masked(rows, SPECIAL, 0.15)
    assert (shown[hidden] == MASK).all()
    assert torch.equal(shown[~hidden], rows[~hidden])
    assert len(method.seen) == math.ceil(40 / 7)
    assert method.training, "as it was before"


@pytest.mark.parametrize("certainty", [0.0, 2.0, 100.0])
def test_known_loss(certainty: float) -> None:
    rows = text()
    found = Mask(0.15, max_rows=100, batch_size=16)(judged(Oracle(rows, certainty), FakeText(rows)))
    loss = math.log(math.exp(certainty) + VOCAB - 1) - certainty
    assert found["mask/loss"] == pytest.approx(loss, abs=1e-4)
    assert found["mask/perplexity"] == pytest.approx(math.exp(loss), rel=1e-4)
    if certainty:
        assert found["mask/top1"] == 1


def test_the_size_of_batches_changes_nothing() -> None:
    rows = text()
    one, many = (Mask(0.15, 100, size)(judged(Oracle(rows, 2.0), FakeText(rows))) for size in (1, 64))
    assert one == pytest.approx(many, rel=1e-6)


def test_floors_of_a_model_that_knows_frequencies_only() -> None:
    rows = torch.full((400, 50), 7)
    rows[:, ::4] = torch.arange(SPECIAL, SPECIAL + 400)[:, None] % 40 + 8
    found = Mask(0.15, max_rows=400, batch_size=64)(judged(Oracle(rows % VOCAB, 1.0), FakeText(rows % VOCAB)))
    frequent = (rows == 7).float().mean().item()
    assert found["mask/majority_top1"] == pytest.approx(frequent, abs=0.03)
    entropy = -frequent * math.log(frequent) - (1 - frequent) * math.log((1 - frequent) / 40)
    assert found["mask/unigram_perplexity"] == pytest.approx(math.exp(entropy), rel=0.1)


def test_only_the_first_rows_are_judged() -> None:
    rows = text()
    method = Oracle(rows, 1.0)
    Mask(0.15, max_rows=10, batch_size=64)(judged(method, FakeText(rows)))
    assert [len(ids) for ids, _, _ in method.seen] == [10]


def test_a_hopeless_model_has_a_finite_perplexity() -> None:
    rows = text()
    found = Mask(0.15, 100, 64)(judged(Oracle(rows, -1e4), FakeText(rows)))
    assert math.isfinite(found["mask/perplexity"])


def test_what_cannot_be_judged_is_refused() -> None:
    rows = text()
    with pytest.raises(ValueError, match=r"evaluators=\[mask\] needs a method.*Method does not.*method=mlm"):
        Mask(0.15, 100, 64)(judged(Method(nn.Linear(1, 1)), FakeText(rows)))
    with pytest.raises(ValueError, match=r"evaluators=\[mask\] needs text"):
        Mask(0.15, 100, 64)(judged(Oracle(rows, 1.0), object()))
    with pytest.raises(ValueError, match="no document was held out"):
        Mask(0.15, 100, 64)(judged(Oracle(rows, 1.0), FakeText(rows[:0])))
    for ratio in (0, 1, 1.5, -0.1):
        with pytest.raises(ValueError, match=f"mask_ratio={ratio} must lie"):
            Mask(ratio, 100, 64)
