"""Masked language modelling: mask some tokens of a text and predict them.

Devlin et al., "BERT: Pre-training of Deep Bidirectional Transformers for Language Understanding", NAACL 2019,
https://arxiv.org/abs/1810.04805, Section 3.1 and Appendix A.1 (80/10/10); dynamic masking: Liu et al., "RoBERTa", 2019,
https://arxiv.org/abs/1907.11692, Section 4.1. Official code: github.com/google-research/bert.
Letters: B rows, L tokens per row, k masked tokens of a row, V vocabulary, D width.
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


class MaskedRows(NamedTuple):
    """Rows of text with masked tokens.

    Attributes:
        ids: (B, L) int64, the input of the encoder.
        positions: (B, k) int64, columns of the tokens to predict.
        targets: (B, k) int64, the true ids there; -100 (ignored) where a short row has fewer tokens to mask.
    """

    ids: Tensor
    positions: Tensor
    targets: Tensor


class MLM(Method):
    """Predicts the masked tokens through the tied token embedding plus a bias.

    Differs from BERT: no dense layer before the projection and no next-sentence task (neither helps at small budgets:
    Geiping & Goldstein, "Cramming", 2022), and exactly round(mask_ratio * n) of the n ordinary tokens of each row are
    chosen (`masks.mask_counts`).

    Args:
        replace: shares of the chosen tokens that become [MASK], become a random token, and stay unchanged; [1, 0, 0] is
            pure masking.
        whole_words: choose whole words instead of tokens.
        word_starts: one character per token id, "1" if the token begins a word, else "0".
        num_special: ids below it (padding, separators, ...) are never chosen, nor used as random tokens.
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
        """Chooses tokens of ids (B, L) uniformly among ordinary ones, or by whole words (the last may be cut)."""
        scores = rand_rows(len(ids), ids.shape[1] + 1, device=ids.device)
        special = ids < self.num_special
        if self.whole_words:
            word = (self.word_starts[ids] | special).long().cumsum(dim=1)  # (B, L), index of the word of each token
            scores = scores.gather(1, word)
        else:
            scores = scores[:, 1:]
        return choose_tokens(scores, ~special, self.mask_ratio)

    def mask_tokens(self, ids: Tensor) -> MaskedRows:
        """Masks tokens of ids (B, L) int64, with new random positions and replacements on each call."""
        positions, chosen = self.choose(ids)
        original = ids.gather(1, positions)
        action, noise = rand_rows(*positions.shape, 2, device=ids.device).unbind(-1)
        random_token = (self.num_special + noise * (len(self.bias) - self.num_special)).long()
        masked, random, _ = self.replace
        inputs = torch.where(action < masked + random, random_token, original)
        inputs = torch.where(action < masked, self.mask_id, inputs)
        inputs = torch.where(chosen, inputs, original)
        return MaskedRows(ids.scatter(1, positions, inputs), positions, original.masked_fill(~chosen, -100))

    def masked_logits(self, ids: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        """Token logits (M, V) float32 at the positions (rows[i], columns[i]) of ids (B, L)."""
        tokens = self.backbone.forward_tokens(ids)[rows, columns]  # (M, D)
        return F.linear(tokens, self.backbone.embedding.weight, self.bias).float()

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Cross-entropy, accuracy and perplexity, mean over the chosen tokens of all views and processes.

        The accuracy includes chosen tokens that were left unchanged; the `mask` evaluator measures masked tokens only.
        """
        # Random numbers are generated per view, so that they are distributed over processes as the examples are.
        masked = MaskedRows(*(torch.cat(x) for x in zip(*map(self.mask_tokens, batch.views), strict=True)))
        rows = torch.arange(len(masked.ids), device=masked.ids.device).repeat_interleave(masked.positions.shape[1])
        targets = masked.targets.flatten()
        logits = self.masked_logits(masked.ids, rows, masked.positions.flatten())
        loss = mean_over(F.cross_entropy(logits, targets, reduction="none"), targets >= 0)
        accuracy = mean_over((logits.argmax(dim=1) == targets).float(), targets >= 0)
        return {"loss": loss, "perplexity": all_reduce_mean(loss.detach()).exp(), "accuracy": accuracy}
