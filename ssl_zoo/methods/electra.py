"""ELECTRA: a generator replaces some tokens of a text, the encoder classifies each token as original or replaced.

Clark, Luong, Le, Manning, "ELECTRA: Pre-training Text Encoders as Discriminators Rather Than Generators", ICLR 2020,
https://arxiv.org/abs/2003.10555, Section 2 and Section 3.2 (shared embeddings, small generators). Official code:
github.com/google-research/electra. Letters: B rows, L tokens per row, k masked tokens of a row, V vocabulary,
D width.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_zoo.backbones.tokens import TextEncoder, encode, take
from ssl_zoo.checks import fraction, positive
from ssl_zoo.distributed import rand_rows
from ssl_zoo.functional import mean_over
from ssl_zoo.method import Batch, Method
from ssl_zoo.nn.masks import choose_tokens


class Corrupted(NamedTuple):
    """Rows in which masked tokens were replaced by samples from the generator.

    Attributes:
        ids: (B, L) int64, the corrupted rows.
        positions: (B, k) int64, columns of the masked tokens.
        logits: (B, k, V) float32, the generator's predictions at `positions`.
        masked: (B, k) bool, False where a short row has fewer tokens to mask; the token there is unchanged.
    """

    ids: Tensor
    positions: Tensor
    logits: Tensor
    masked: Tensor


class ELECTRA(Method):
    """The backbone is the discriminator, with one linear layer on each token; only the backbone is kept.

    Token embeddings are shared: a linear layer maps them to the generator's width, and Linear-GELU-LayerNorm maps the
    generator's output back to the embedding's width, to which the prediction is tied (Section 3.2, footnote; the layers
    are those of the official code). The first has no bias: initial embeddings are small, and a random bias would
    dominate them in the LayerNorm that follows.

    Differs from the official code: masked tokens are always replaced by [MASK] for the generator, as in the paper
    (official: 15 % are kept); the discriminator's head is a single layer; its loss excludes special tokens, which are
    never replaced; and the generator never samples a special token, since padding would remove the position.

    Args:
        generator: a text encoder, whose own token embedding is not used.
        disc_weight: lambda in the paper.
        num_special: ids below it (padding, separators, ...) are never masked, sampled or classified.
    """

    generator: Any

    def __init__(
        self,
        backbone: nn.Module,
        generator: nn.Module,
        mask_ratio: float,
        disc_weight: float,
        mask_id: int,
        num_special: int,
    ):
        super().__init__(backbone)
        fraction(mask_ratio=mask_ratio)
        positive(disc_weight=disc_weight)
        if not isinstance(backbone, TextEncoder):
            raise ValueError(f"backbone: {type(backbone).__name__} does not read token ids. Choose e.g. text_small")
        embedding: Any = backbone.embedding
        vocab_size, width = embedding.num_embeddings, embedding.embedding_dim
        self.generator = generator
        self.generator.embedding = nn.Sequential(embedding, nn.Linear(width, self.generator.num_features, bias=False))
        self.generator_head = nn.Sequential(
            nn.Linear(self.generator.num_features, width), nn.GELU(), nn.LayerNorm(width)
        )
        self.bias = nn.Parameter(torch.zeros(vocab_size))
        self.discriminator_head = nn.Linear(self.backbone.num_features, 1)
        self.mask_ratio = mask_ratio
        self.disc_weight = disc_weight
        self.mask_id = mask_id
        self.num_special = num_special

    def token_logits(self, features: Tensor) -> Tensor:
        """Logits (..., V) float32 of the generator's outputs (..., D), through the shared embedding."""
        return F.linear(self.generator_head(features), self.backbone.embedding.weight, self.bias).float()

    def masked_logits(self, ids: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        """The generator's token logits (M, V) at the positions (rows[i], columns[i]) of ids (B, L)."""
        return self.token_logits(encode(self.generator, ids).tokens[rows, columns])

    def corrupt(self, ids: Tensor) -> Corrupted:
        """Masks tokens of ids (B, L) int64 and samples replacements from the generator, without gradient (Section 2).

        round(mask_ratio * n) of the n ordinary tokens of each row are masked.
        """
        scores = rand_rows(*ids.shape, device=ids.device)
        positions, masked = choose_tokens(scores, ids >= self.num_special, self.mask_ratio)  # (B, k)
        original = ids.gather(1, positions)
        inputs = ids.scatter(1, positions, original.masked_fill(masked, self.mask_id))
        logits = self.token_logits(take(encode(self.generator, inputs).tokens, positions))
        sampled = self.sample(logits, rand_rows(*positions.shape, device=ids.device))
        return Corrupted(ids.scatter(1, positions, torch.where(masked, sampled, original)), positions, logits, masked)

    @torch.no_grad()
    def sample(self, logits: Tensor, uniform: Tensor) -> Tensor:
        """Samples ordinary tokens from softmax(logits) by inverting the cumulative distribution.

        Args:
            logits: (..., V).
            uniform: (...) random in [0, 1).

        Returns:
            (...) int64.
        """
        cumulative = logits[..., self.num_special :].softmax(dim=-1).cumsum(dim=-1)
        target = (uniform * cumulative[..., -1]).unsqueeze(-1)  # in float32 the last sum is only close to 1
        sampled = torch.searchsorted(cumulative, target, right=True).squeeze(-1).clamp(max=cumulative.shape[-1] - 1)
        return sampled + self.num_special

    def losses(self, ids: Tensor) -> dict[str, Tensor]:
        """The scalars of one view (B, L)."""
        corrupted, ordinary = self.corrupt(ids), ids >= self.num_special
        targets = ids.gather(1, corrupted.positions)
        generator_errors = F.cross_entropy(corrupted.logits.flatten(0, 1), targets.flatten(), reduction="none")
        generator_loss = mean_over(generator_errors.view_as(targets), corrupted.masked)
        replaced = corrupted.ids != ids  # a sample that equals the true token counts as original
        logits = self.discriminator_head(encode(self.backbone, corrupted.ids).tokens).squeeze(-1).float()
        errors = F.binary_cross_entropy_with_logits(logits, replaced.float(), reduction="none")
        discriminator_loss = mean_over(errors, ordinary)
        return {
            "loss": generator_loss + self.disc_weight * discriminator_loss,
            "generator_loss": generator_loss.detach(),
            "discriminator_loss": discriminator_loss.detach(),
            "replaced": mean_over(replaced.float(), ordinary),
            "accuracy": mean_over(((logits > 0) == replaced).float(), ordinary),
        }

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Loss of the generator plus `disc_weight` times that of the discriminator, mean over the views.

        The generator's cross-entropy is the mean over masked tokens, the discriminator's binary cross-entropy over
        ordinary tokens. `replaced` is the share of replaced tokens; always answering "original" would give `accuracy`
        1 - replaced.
        """
        scalars = [self.losses(view) for view in batch.views]
        return {name: torch.stack([view[name] for view in scalars]).mean() for name in scalars[0]}
