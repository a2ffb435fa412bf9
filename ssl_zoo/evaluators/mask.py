"""Masked-token evaluation: how well hidden tokens of held-out text are filled in.

15 % of the ordinary tokens, all of them shown as [MASK], the same ones in every run: so runs that trained with other
masking rates or replacements compare (ModernBERT's configuration does the same: Warner et al., 2024,
https://arxiv.org/abs/2412.13663). Numbers for different tokenizers do not compare.
Letters: N rows, L tokens a row, M hidden tokens, V vocabulary.
"""

import math
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_zoo.evaluators.base import EvalContext, frozen
from ssl_zoo.evaluators.proportion import Proportion
from ssl_zoo.nn.masks import mask_counts


@runtime_checkable
class PredictsTokens(Protocol):
    """A method with a token head."""

    def masked_logits(self, ids: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        """Logits (M, V) for the tokens at (rows[i], columns[i]) of ids (B, L)."""


@runtime_checkable
class HoldsOutRows(Protocol):
    """Text data with documents that are not trained on."""

    def heldout_rows(self) -> Tensor:
        """Packed rows (N, L) int64."""


def choose_masked(rows: Tensor, num_special: int, mask_ratio: float) -> Tensor:
    """Which tokens to mask, (N, L) bool: round(mask_ratio * n) of the n ordinary tokens of each row, see `counts`.

    Ids from num_special on are ordinary. A pure function of its arguments: the same in every run and process.
    """
    ordinary = rows >= num_special
    scores = torch.rand(rows.shape, generator=torch.Generator().manual_seed(0)).masked_fill(~ordinary, 2)
    return scores.argsort(dim=1).argsort(dim=1) < mask_counts(mask_ratio, ordinary)[:, None]


class Mask:
    """Reports `mask/top1`, `mask/loss` (mean cross-entropy in nats) and `mask/perplexity` of hidden tokens.

    And two floors, `mask/majority_top1` and `mask/unigram_perplexity`: of a model that knows how frequent each held-out
    token is and nothing else.
    """

    needs_labels = False

    def __init__(self, mask_ratio: float, max_rows: int, batch_size: int):
        """max_rows: at most this many held-out rows, the first ones; batch_size: rows a forward pass.

        Raises:
            ValueError: for a ratio outside (0, 1).
        """
        if not 0 < mask_ratio < 1:
            raise ValueError(f"evaluators.mask.mask_ratio={mask_ratio} must lie between 0 and 1, 0.15 for example")
        self.mask_ratio, self.max_rows, self.batch_size = mask_ratio, max_rows, batch_size

    def __call__(self, context: EvalContext) -> dict[str, float]:
        """Raises: ValueError when the method predicts no tokens, or the data are no text."""
        method, data = context.method, context.data
        if not isinstance(method, PredictsTokens):
            raise ValueError(
                f"evaluators=[mask] needs a method that predicts hidden tokens, and {type(method).__name__} does not: "
                "leave mask out, or choose method=mlm"
            )
        if not isinstance(data, HoldsOutRows):
            raise ValueError("evaluators=[mask] needs text, and this data is none: leave mask out")
        rows = data.heldout_rows()[: self.max_rows]
        hidden = choose_masked(rows, data.facts["num_special"], self.mask_ratio)
        if not hidden.any():
            raise ValueError("evaluators=[mask]: no document was held out; give the data more text or leave mask out")
        shown = rows.masked_fill(hidden, data.facts["mask_id"])

        loss, correct = 0.0, 0
        with frozen(context.method), context.precision():
            parts = (part.split(self.batch_size) for part in (rows, shown, hidden))
            for true, ids, where in zip(*parts, strict=True):
                logits = method.masked_logits(ids.to(context.device), *where.to(context.device).nonzero(as_tuple=True))
                targets = true[where].to(context.device)
                loss += F.cross_entropy(logits.float(), targets, reduction="sum").item()
                correct += int((logits.argmax(dim=1) == targets).sum())
        count = int(hidden.sum())
        floors = self._floors(rows[rows >= data.facts["num_special"]], rows[hidden])
        return {
            "mask/top1": Proportion(correct / count, count),
            "mask/loss": loss / count,
            "mask/perplexity": math.exp(min(loss / count, 700.0)),  # e to more overflows
        } | floors

    def _floors(self, ordinary: Tensor, targets: Tensor) -> dict[str, float]:
        frequencies = ordinary.bincount()
        surprise = -(frequencies[targets].double() / len(ordinary)).log()
        return {
            "mask/majority_top1": Proportion((targets == frequencies.argmax()).double().mean().item(), len(targets)),
            "mask/unigram_perplexity": surprise.mean().exp().item(),
        }
