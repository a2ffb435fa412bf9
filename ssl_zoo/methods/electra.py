"""ELECTRA: a small masked-token model replaces some tokens, the encoder tells for every token whether it is original.

Clark, Luong, Le, Manning, "ELECTRA: Pre-training Text Encoders as Discriminators Rather Than Generators", ICLR 2020,
https://arxiv.org/abs/2003.10555, Section 2 and Section 3.2 (shared embeddings, small generators). Official code:
github.com/google-research/electra. Letters: B rows, L tokens per row, k columns that hold the masked tokens of a row, V
vocabulary, D width.
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
    """What the generator made of rows (B, L). ids: (B, L), the tokens at `positions` drawn from the generator;
    positions: (B, k) columns that were hidden from it; logits: (B, k, V) float32, its predictions there; hidden:
    (B, k) bool, False where a shorter row has fewer tokens to mask and the one there was left alone."""

    ids: Tensor
    positions: Tensor
    logits: Tensor
    hidden: Tensor


class ELECTRA(Method):
    """The backbone is the discriminator, with one linear layer on each token; the generator is thrown away.

    Token embeddings are shared: a linear layer brings them to the generator's width, Linear-GELU-LayerNorm brings its
    output back to theirs, to which the prediction is tied (Section 3.2, footnote; the official code's layers). The
    former has no bias: fresh embeddings are small, and a fresh bias would drown them before the norm that follows.
    Differs from the official code: hidden tokens are always shown to the generator as [MASK], as in the paper (there
    15 % stay in sight); the discriminator's head has no dense layer before the last; its loss leaves out special
    tokens, which are never replaced, and the generator never draws one, since padding would hide the token's place.
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
        """generator: a text encoder, whose own token embedding is not used. disc_weight: lambda of the paper.
        num_special: ids below it (padding, separators, ...) are never hidden, drawn or judged."""
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
        self.mask_ratio, self.disc_weight = mask_ratio, disc_weight
        self.mask_id, self.num_special = mask_id, num_special

    def token_logits(self, hidden: Tensor) -> Tensor:
        """The generator's outputs (..., D) -> (..., V) float32, by the shared embedding."""
        return F.linear(self.generator_head(hidden), self.backbone.embedding.weight, self.bias).float()

    def masked_logits(self, ids: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        """The generator's token logits (M, V) at the positions (rows[i], columns[i]) of ids (B, L)."""
        return self.token_logits(encode(self.generator, ids).tokens[rows, columns])

    def corrupt(self, ids: Tensor) -> Corrupted:
        """ids: (B, L) int64. Masks round(mask_ratio * n) of each row's n ordinary tokens, lets the generator guess them
        and draws from its guesses, which no gradient passes (Section 2)."""
        scores = rand_rows(*ids.shape, device=ids.device)
        positions, hidden = choose_tokens(scores, ids >= self.num_special, self.mask_ratio)  # (B, k)
        original = ids.gather(1, positions)
        shown = ids.scatter(1, positions, original.masked_fill(hidden, self.mask_id))
        logits = self.token_logits(take(encode(self.generator, shown).tokens, positions))
        drawn = self.draw(logits, rand_rows(*positions.shape, device=ids.device))
        return Corrupted(ids.scatter(1, positions, torch.where(hidden, drawn, original)), positions, logits, hidden)

    @torch.no_grad()
    def draw(self, logits: Tensor, uniform: Tensor) -> Tensor:
        """Ordinary tokens (...) by softmax(logits (..., V)): where the cumulative distribution passes `uniform`."""
        below = logits[..., self.num_special :].softmax(dim=-1).cumsum(dim=-1)
        target = (uniform * below[..., -1]).unsqueeze(-1)  # float32 sums end near 1, not at it
        drawn = torch.searchsorted(below, target, right=True).squeeze(-1).clamp(max=below.shape[-1] - 1)
        return drawn + self.num_special

    def losses(self, ids: Tensor) -> dict[str, Tensor]:
        """The scalars of one view (B, L)."""
        corrupted, ordinary = self.corrupt(ids), ids >= self.num_special
        targets = ids.gather(1, corrupted.positions)
        guesses = F.cross_entropy(corrupted.logits.flatten(0, 1), targets.flatten(), reduction="none")
        generator_loss = mean_over(guesses.view_as(targets), corrupted.hidden)
        replaced = corrupted.ids != ids  # a draw that hits the true token is an original one
        verdicts = self.discriminator_head(encode(self.backbone, corrupted.ids).tokens).squeeze(-1).float()
        judged = F.binary_cross_entropy_with_logits(verdicts, replaced.float(), reduction="none")
        discriminator_loss = mean_over(judged, ordinary)
        return {
            "loss": generator_loss + self.disc_weight * discriminator_loss,
            "generator_loss": generator_loss.detach(),
            "discriminator_loss": discriminator_loss.detach(),
            "replaced": mean_over(replaced.float(), ordinary),
            "accuracy": mean_over(((verdicts > 0) == replaced).float(), ordinary),
        }

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Cross-entropy of the generator, mean over hidden tokens, plus `disc_weight` times the binary cross-entropy of
        the discriminator, mean over ordinary tokens; mean over the views. replaced: share of tokens that are not
        original, 1 - replaced is what `accuracy` has to beat."""
        scalars = [self.losses(view) for view in batch.views]
        return {name: torch.stack([each[name] for each in scalars]).mean() for name in scalars[0]}
