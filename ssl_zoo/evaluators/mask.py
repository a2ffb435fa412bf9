"""Masked-token evaluation: how well masked tokens of held-out text are predicted.

15 % of the ordinary tokens are replaced by [MASK], the same ones in every run. So runs that trained with other masking
ratios or replacements can be compared; ModernBERT's configuration does the same (Warner et al., 2024,
https://arxiv.org/abs/2412.13663). Numbers for different tokenizers cannot be compared.
Letters: N rows, L tokens per row, M masked tokens, V vocabulary.
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
        """Packed rows, (N, L) int64."""


def choose_masked(rows: Tensor, num_special: int, mask_ratio: float) -> Tensor:
    """Which tokens to mask: round(mask_ratio * n) of the n ordinary tokens of each row, the same in every run.

    Args:
        rows: (N, L) int64, token ids.
        num_special: ids from here on are ordinary tokens.
        mask_ratio: share in (0, 1).

    Returns:
        (N, L) bool, True at masked tokens.
    """
    ordinary = rows >= num_special
    scores = torch.rand(rows.shape, generator=torch.Generator().manual_seed(0)).masked_fill(~ordinary, 2)
    return scores.argsort(dim=1).argsort(dim=1) < mask_counts(mask_ratio, ordinary)[:, None]


class Mask:
    """Reports `mask/top1`, `mask/loss` (mean cross-entropy in nats) and `mask/perplexity` of masked tokens.

    It also reports two baselines, `mask/majority_top1` and `mask/unigram_perplexity`, which a model reaches that knows
    how frequent each held-out token is and nothing else.
    """

    needs_labels = False
    needs_method = PredictsTokens

    def __init__(self, mask_ratio: float, max_rows: int, batch_size: int):
        """Keeps the settings.

        Args:
            mask_ratio: share of the ordinary tokens that are masked, in (0, 1).
            max_rows: maximum number of held-out rows; the first ones are used.
            batch_size: rows per forward pass.

        Raises:
            ValueError: for a ratio outside (0, 1).
        """
        if not 0 < mask_ratio < 1:
            raise ValueError(f"evaluators.mask.mask_ratio={mask_ratio} must lie between 0 and 1, 0.15 for example")
        self.mask_ratio = mask_ratio
        self.max_rows = max_rows
        self.batch_size = batch_size

    def __call__(self, context: EvalContext) -> dict[str, float]:
        """All metrics.

        Raises:
            ValueError: when the method predicts no tokens, the data is not text, or no document was held out.
        """
        method, data = context.method, context.data
        if not isinstance(method, PredictsTokens):
            raise ValueError(
                f"evaluators=[mask] needs a method that predicts masked tokens, and {type(method).__name__} does not: "
                "leave mask out, or choose method=mlm"
            )
        if not isinstance(data, HoldsOutRows):
            raise ValueError("evaluators=[mask] needs text, and this data is not text: leave mask out")
        rows = data.heldout_rows()[: self.max_rows]
        masked = choose_masked(rows, data.facts["num_special"], self.mask_ratio)
        if not masked.any():
            raise ValueError("evaluators=[mask]: no document was held out; give the data more text or leave mask out")
        inputs = rows.masked_fill(masked, data.facts["mask_id"])

        loss = 0.0
        correct = 0
        with frozen(context.method), context.precision():
            batches = (tensor.split(self.batch_size) for tensor in (rows, inputs, masked))
            for true, ids, where in zip(*batches, strict=True):
                logits = method.masked_logits(ids.to(context.device), *where.to(context.device).nonzero(as_tuple=True))
                targets = true[where].to(context.device)
                loss += F.cross_entropy(logits.float(), targets, reduction="sum").item()
                correct += int((logits.argmax(dim=1) == targets).sum())
        count = int(masked.sum())
        baselines = self._baselines(rows[rows >= data.facts["num_special"]], rows[masked])
        return {
            "mask/top1": Proportion(correct / count, count),
            "mask/loss": loss / count,
            "mask/perplexity": math.exp(min(loss / count, 700.0)),  # a greater exponent overflows
        } | baselines

    def _baselines(self, ordinary: Tensor, targets: Tensor) -> dict[str, float]:
        frequencies = ordinary.bincount()
        surprise = -(frequencies[targets].double() / len(ordinary)).log()
        return {
            "mask/majority_top1": Proportion((targets == frequencies.argmax()).double().mean().item(), len(targets)),
            "mask/unigram_perplexity": surprise.mean().exp().item(),
        }
