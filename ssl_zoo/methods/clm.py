"""Causal language modelling: predict each token of a text from the tokens before it.

Radford, Narasimhan, Salimans, Sutskever, "Improving Language Understanding by Generative Pre-Training", 2018,
https://cdn.openai.com/research-covers/language-unsupervised/language_understanding_paper.pdf, Eq. 1 and 2.
Official code: github.com/openai/finetune-transformer-lm. Letters: B rows, L tokens per row, V vocabulary, D width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_zoo.backbones.tokens import TextEncoder, eligible, encode
from ssl_zoo.distributed import all_reduce_mean
from ssl_zoo.functional import mean_over
from ssl_zoo.method import Batch, Method


class CLM(Method):
    """Predicts the next token at every position through the tied token embedding plus a bias (the paper has none)."""

    def __init__(self, backbone: nn.Module):
        super().__init__(backbone)
        if not isinstance(backbone, TextEncoder) or not getattr(backbone, "causal", False):
            raise ValueError(
                "backbone.causal must be true: an encoder that sees the next token has nothing to predict. Choose "
                "backbone=text_tiny, text_small or text_base with backbone.causal=true"
            )
        self.bias = nn.Parameter(torch.zeros(self.backbone.embedding.num_embeddings))

    def next_logits(self, ids: Tensor) -> Tensor:
        """Logits (B, L, V) float32 of the token that follows each position of ids (B, L)."""
        return F.linear(encode(self.backbone, ids).tokens, self.backbone.embedding.weight, self.bias).float()

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Cross-entropy of the next token, and its perplexity and accuracy.

        The mean is over all tokens of a view except padding and the first of each row, then over the views.
        """
        losses, hits = zip(*(self.losses(view) for view in batch.views), strict=True)
        loss = torch.stack(losses).mean()
        return {"loss": loss, "perplexity": all_reduce_mean(loss.detach()).exp(), "accuracy": torch.stack(hits).mean()}

    def losses(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Loss and accuracy of one view (B, L)."""
        logits, targets = self.next_logits(ids)[:, :-1], ids[:, 1:]
        real = eligible(self.backbone, ids)[:, 1:]
        errors = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none").view_as(targets)
        correct = (logits.argmax(dim=-1) == targets).float()
        return mean_over(errors, real), mean_over(correct, real)
