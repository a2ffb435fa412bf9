"""Masked language modelling: hide some tokens of a text and fill them in.

Devlin et al., "BERT: Pre-training of Deep Bidirectional Transformers for Language Understanding", NAACL 2019,
https://arxiv.org/abs/1810.04805, Section 3.1 and Appendix A.1 (80/10/10); dynamic masking: Liu et al., "RoBERTa", 2019,
https://arxiv.org/abs/1907.11692, Section 4.1. Official code: github.com/google-research/bert.
Letters: B rows, L tokens per row, k columns that hold the masked tokens of a row, V vocabulary, D width.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_zoo.checks import fraction
from ssl_zoo.distributed import all_reduce_mean, rand_rows
from ssl_zoo.functional import mean_over
from ssl_zoo.method import Batch, Method
from ssl_zoo.nn.masks import ChosenTokens, choose_tokens


class Masked(NamedTuple):
    """Rows with hidden tokens. ids: (B, L) as the encoder sees them; positions: (B, k) columns that were chosen;
    targets: (B, k) the true ids there, -100 (ignored by the loss) where a shorter row has fewer tokens to mask."""

    ids: Tensor
    positions: Tensor
    targets: Tensor


class MLM(Method):
    """Tied token embeddings plus a bias predict each hidden token, at the hidden positions only.

    Differs from BERT: no dense layer before the projection and no next-sentence task (neither helps at small budgets:
    Geiping & Goldstein, "Cramming", 2022), and exactly round(mask_ratio * n) of the n ordinary tokens of each row are
    chosen (`masks.counts`).
    """

    word_starts: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        mask_ratio: float,
        replace: list[float],
        whole_words: bool,
        mask_id: int,
        num_special: int,
        word_starts: str,
    ):
        """replace: shares of the chosen tokens that become [MASK], a random token, and stay; [1, 0, 0] is pure masking.
        whole_words: choose words, not tokens; word_starts holds "1" for each id that begins a word, else "0".
        num_special: ids below it (padding, separators, ...) are never chosen nor drawn as random tokens."""
        super().__init__(backbone)
        fraction(mask_ratio=mask_ratio)
        if len(replace) != 3 or min(replace) < 0 or abs(sum(replace) - 1) > 1e-6:
            raise ValueError(f"method.replace={replace} must be three shares that sum to 1, e.g. [0.8,0.1,0.1]")
        vocab_size = self.backbone.embedding.num_embeddings
        self.bias = nn.Parameter(torch.zeros(vocab_size))
        self.mask_ratio = mask_ratio
        self.replace = replace
        self.whole_words = whole_words
        self.mask_id = mask_id
        self.num_special = num_special
        starts = torch.tensor([c == "1" for c in word_starts])
        self.register_buffer("word_starts", starts, persistent=False)

    def choose(self, ids: Tensor) -> ChosenTokens:
        """The tokens to mask in ids (B, L): uniform over ordinary tokens, or whole words (the last one cut)."""
        scores = rand_rows(len(ids), ids.shape[1] + 1, device=ids.device)
        special = ids < self.num_special
        if self.whole_words:
            word = (self.word_starts[ids] | special).long().cumsum(dim=1)  # (B, L), the word each token is part of
            scores = scores.gather(1, word)
        else:
            scores = scores[:, 1:]
        return choose_tokens(scores, ~special, self.mask_ratio)

    def hide(self, ids: Tensor) -> Masked:
        """ids: (B, L) int64. Draws new positions and replacements on each call."""
        positions, chosen = self.choose(ids)
        original = ids.gather(1, positions)
        fate, noise = rand_rows(*positions.shape, 2, device=ids.device).unbind(-1)
        any_token = (self.num_special + noise * (len(self.bias) - self.num_special)).long()
        masked, random, _ = self.replace
        shown = torch.where(fate < masked, self.mask_id, torch.where(fate < masked + random, any_token, original))
        shown = torch.where(chosen, shown, original)
        return Masked(ids.scatter(1, positions, shown), positions, original.masked_fill(~chosen, -100))

    def masked_logits(self, ids: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        """Token logits (M, V) float32 at the positions (rows[i], columns[i]) of ids (B, L)."""
        hidden = self.backbone.forward_tokens(ids)[rows, columns]  # (M, D)
        return F.linear(hidden, self.backbone.embedding.weight, self.bias).float()

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Cross-entropy, mean over the hidden tokens of all views and processes; their accuracy and perplexity.

        Training accuracy counts tokens that were left in sight; skill is what the `mask` evaluator measures."""
        # One draw for each view: its rows are shared out over the processes as the examples are.
        masked = Masked(*(torch.cat(parts) for parts in zip(*map(self.hide, batch.views), strict=True)))
        rows = torch.arange(len(masked.ids), device=masked.ids.device).repeat_interleave(masked.positions.shape[1])
        targets = masked.targets.flatten()
        logits = self.masked_logits(masked.ids, rows, masked.positions.flatten())
        loss = mean_over(F.cross_entropy(logits, targets, reduction="none"), targets >= 0)
        accuracy = mean_over((logits.argmax(dim=1) == targets).float(), targets >= 0)
        return {"loss": loss, "perplexity": all_reduce_mean(loss.detach()).exp(), "accuracy": accuracy}
