"""TSDAE: delete most tokens of a text, encode the rest as one vector, and reconstruct the whole text from it.

Wang, Reimers, Gurevych, "TSDAE: Using Transformer-based Sequential Denoising Auto-Encoder for Unsupervised Sentence
Embedding Learning", Findings of EMNLP 2021, https://arxiv.org/abs/2104.06979, Section 3. Official code:
github.com/UKPLab/sentence-transformers. Letters: B rows, L tokens per row, M tokens kept, V vocabulary, D width.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_zoo.backbones.tokens import TextEncoder, eligible, embed, encode, grid
from ssl_zoo.checks import fraction
from ssl_zoo.distributed import all_reduce_mean
from ssl_zoo.functional import mean_over
from ssl_zoo.method import Batch, Method
from ssl_zoo.nn.masks import RandomMask, unmasked


class TSDAE(Method):
    """The encoder's pooled vector is the first input of a causal decoder, followed by the text itself.

    Differs from the paper, whose decoder attends to the vector by cross-attention and shares all weights with the
    encoder: here the vector is a prefix token, and only the input and output token embeddings are shared.

    Args:
        decoder: a causal text transformer as wide as the backbone, whose own token embedding is not used.
    """

    decoder: Any

    def __init__(self, backbone: nn.Module, decoder: nn.Module, delete_ratio: float, pad_id: int):
        super().__init__(backbone)
        fraction(delete_ratio=delete_ratio)
        self.mask = RandomMask(delete_ratio)
        if not isinstance(backbone, TextEncoder):
            raise ValueError(f"backbone: {type(backbone).__name__} does not read token ids. Choose e.g. text_small")
        if not getattr(decoder, "causal", False):
            raise ValueError("method.decoder.causal must be true: it would copy the text it is to write")
        self.decoder = decoder
        embedding: Any = backbone.embedding
        widths = (embedding.embedding_dim, self.backbone.num_features)
        if widths != (self.decoder.num_features,) * 2:
            raise ValueError(
                f"method.decoder.embed_dim={self.decoder.num_features} must be the width of the backbone, {widths[1]}, "
                f"and of its token embedding, {widths[0]}"
            )
        self.decoder.embedding = embedding
        self.bias = nn.Parameter(torch.zeros(embedding.num_embeddings))
        self.pad_id = pad_id

    def delete(self, ids: Tensor) -> Tensor:
        """Deletes round(delete_ratio * n) of the n tokens of each row of ids (B, L); at least one remains.

        Returns:
            (B, M) int64, the remaining tokens in order and without gaps, then padding; a row of L tokens keeps M.
        """
        real = eligible(self.backbone, ids)
        deleted = self.mask(real, grid(self.backbone, ids))
        columns = unmasked(deleted, real, self.mask.mask_ratio)
        return ids.gather(1, columns).masked_fill(~real.gather(1, columns), self.pad_id)

    def logits(self, vector: Tensor, ids: Tensor) -> Tensor:
        """Logits (B, L, V) float32 of each token of ids (B, L), given the previous tokens and vector (B, D)."""
        # The first id only marks the position of the vector as text, not padding.
        previous = torch.cat([ids[:, :1], ids[:, :-1]], dim=1)
        x = torch.cat([vector.unsqueeze(1), embed(self.backbone, ids)[:, :-1]], dim=1)
        tokens = encode(self.decoder, previous, embeddings=x).tokens
        return F.linear(tokens, self.backbone.embedding.weight, self.bias).float()

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Cross-entropy, mean over all tokens of a view except padding, then over the views; and its perplexity."""
        loss = torch.stack([self.loss(view) for view in batch.views]).mean()
        return {"loss": loss, "perplexity": all_reduce_mean(loss.detach()).exp()}

    def loss(self, ids: Tensor) -> Tensor:
        """Cross-entropy of one view (B, L)."""
        real = eligible(self.backbone, ids)
        logits = self.logits(self.backbone(self.delete(ids)), ids)
        errors = F.cross_entropy(logits.flatten(0, 1), ids.flatten(), reduction="none").view_as(ids)
        return mean_over(errors, real)
