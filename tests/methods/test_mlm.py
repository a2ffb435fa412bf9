"""Masking, the loss at masked positions and tied embeddings."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_zoo.method import Batch
from ssl_zoo.methods.mlm import MLM
from ssl_zoo.nn.masks import as_mask

VOCABULARY, SPECIAL, MASK = 40, 5, 4


class Tokens(nn.Module):
    """A text encoder of one embedding and one layer, enough for the maths of the objective."""

    num_features = 8

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, 8)
        self.layer = nn.Linear(8, 8)

    def forward_tokens(self, ids: Tensor) -> Tensor:
        x = self.embedding(ids)
        return self.layer(x + x.mean(dim=1, keepdim=True))


def make(mask_ratio: float = 0.3, replace: tuple[float, ...] = (0.8, 0.1, 0.1), whole_words: bool = False) -> MLM:
    starts = "".join("1" if i % 3 == 0 else "0" for i in range(VOCABULARY))
    return MLM(Tokens(), mask_ratio, list(replace), whole_words, MASK, SPECIAL, starts)


def rows(count: int = 16, length: int = 30) -> Tensor:
    return torch.randint(SPECIAL, VOCABULARY, (count, length))


@pytest.mark.parametrize("whole_words", [False, True])
def test_a_share_of_the_ordinary_tokens_of_each_row_is_masked(whole_words: bool) -> None:
    ids = rows()
    ids[:, 10] = 3
    for row, length in enumerate((0, 1, 2, 3, 8)):  # an empty row, and rows with fewer tokens
        ids[row, length:] = 0
    masked = make(0.2, whole_words=whole_words).mask_tokens(ids)
    assert masked.positions.shape == (16, 6)
    assert [len(set(row.tolist())) for row in masked.positions] == [6] * 16
    assert (masked.targets >= SPECIAL).sum(1).tolist() == [0, 0, 1, 1, 2, *[6] * 11]
    assert ((masked.targets >= SPECIAL) | (masked.targets == -100)).all()
    untouched = torch.ones_like(ids, dtype=torch.bool).scatter(1, masked.positions, False)
    assert torch.equal(masked.ids[untouched], ids[untouched])
    assert torch.equal(masked.ids[ids < SPECIAL], ids[ids < SPECIAL])


def test_shares_of_mask_random_and_unchanged() -> None:
    ids = rows(2000, 64)
    masked = make(0.5, (0.6, 0.3, 0.1)).mask_tokens(ids)
    shown, truth = masked.ids.gather(1, masked.positions), masked.targets
    share_masked = (shown == MASK).float().mean().item()
    share_kept = (shown == truth).float().mean().item()
    assert share_masked == pytest.approx(0.6, abs=0.01)
    assert share_kept == pytest.approx(
        0.1 + 0.3 / (VOCABULARY - SPECIAL), abs=0.01
    )  # a random token may be the true one
    assert (shown[shown != MASK] >= SPECIAL).all()


def test_masks_are_new_on_each_call_and_the_same_for_the_same_seed() -> None:
    method, ids = make(), rows()
    torch.manual_seed(0)
    first, second = method.mask_tokens(ids), method.mask_tokens(ids)
    torch.manual_seed(0)
    assert torch.equal(method.mask_tokens(ids).ids, first.ids)
    assert not torch.equal(first.positions, second.positions)


def test_whole_words_are_cut_at_most_once_a_row() -> None:
    method, ids = make(0.3, whole_words=True), rows(200, 60)
    ids[:, 20] = 3
    hidden = as_mask(method.choose(ids), 60)
    words = ((ids % 3 == 0) | (ids < SPECIAL)).long().cumsum(dim=1)
    words[ids < SPECIAL] = -1  # a separator belongs to no word
    for chosen, word in zip(hidden, words, strict=True):
        shares = [chosen[word == w].float().mean().item() for w in word.unique()]
        assert sum(0 < share < 1 for share in shares) <= 1
    assert not hidden[ids < SPECIAL].any()


def test_loss_equals_the_dense_cross_entropy() -> None:
    method, ids = make(), rows()
    torch.manual_seed(3)
    scalars = method(Batch([ids], ids[:, 0], ids[:, 0]), 0.0)
    torch.manual_seed(3)
    masked = method.mask_tokens(ids)
    labels = torch.full_like(ids, -100).scatter(1, masked.positions, masked.targets)
    logits = method.backbone.forward_tokens(masked.ids) @ method.backbone.embedding.weight.T + method.bias  # type: ignore[operator, union-attr]
    dense = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=-100)
    torch.testing.assert_close(scalars["loss"], dense)
    torch.testing.assert_close(scalars["perplexity"], dense.exp())
    hits = (logits.argmax(dim=-1) == labels).sum() / (labels >= 0).sum()
    torch.testing.assert_close(scalars["accuracy"], hits)


def test_an_untrained_head_knows_nothing() -> None:
    method, ids = make(replace=(1.0, 0.0, 0.0)), rows()
    nn.init.zeros_(method.backbone.embedding.weight)  # type: ignore[union-attr]
    assert method(Batch([ids], ids[:, 0], ids[:, 0]), 0.0)["loss"].item() == pytest.approx(
        math.log(VOCABULARY), abs=1e-5
    )


def test_the_head_is_tied_to_the_embedding() -> None:
    method = make()
    names = [name for name, p in method.named_parameters() if p.shape == (VOCABULARY, 8)]
    assert names == ["backbone.embedding.weight"]


@pytest.mark.parametrize("ratio", [0, 1, 1.5, -0.1])
def test_bad_ratio_is_refused(ratio: float) -> None:
    with pytest.raises(ValueError, match=r"method\.mask_ratio"):
        make(ratio)


def test_bad_shares_are_refused() -> None:
    with pytest.raises(ValueError, match=r"method\.replace"):
        make(replace=(0.5, 0.1, 0.1))
