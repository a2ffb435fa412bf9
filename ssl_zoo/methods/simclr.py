"""SimCLR: two views of an example attract each other, all other examples of the batch repel.

Chen, Kornblith, Norouzi, Hinton, "A Simple Framework for Contrastive Learning of Visual Representations", ICML 2020,
https://arxiv.org/abs/2002.05709, Algorithm 1. Official code: github.com/google-research/simclr.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn

from ssl_zoo.functional import all_gather, embed_views, info_nce, own_rows, positive, view_pairs
from ssl_zoo.heads import mlp
from ssl_zoo.method import Batch, Method


def nt_xent(z1: Tensor, z2: Tensor, temperature: float) -> Tensor:
    """NT-Xent (Eq. 1), mean over the 2B queries. z1, z2: (B, D), the projections of two views of the same B examples.

    The negatives come from all processes, so that W processes of B/W examples give the loss of one with B.
    """
    z = torch.cat([z1, z2])  # (2B, D)
    keys = all_gather(z)  # (2BW, D)
    own = own_rows(z)  # where each query sits among the keys
    itself = own[:, None] == torch.arange(len(keys), device=z.device)
    return info_nce(z, keys, positives=own.roll(len(z1)), temperature=temperature, hidden=itself)


class SimCLR(Method):
    """Projector with one hidden layer (Section 4.2); the loss is NT-Xent on its output, the backbone is kept."""

    min_views: ClassVar[int] = 2

    def __init__(self, backbone: nn.Module, hidden_dim: int, out_dim: int, temperature: float):
        super().__init__(backbone)
        positive(hidden_dim=hidden_dim, out_dim=out_dim, temperature=temperature)
        self.projector = mlp(self.backbone.num_features, hidden_dim, out_dim)
        self.temperature = temperature

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """With more than two views the loss is the mean over all pairs with a global view in them."""
        z = [self.projector(h) for h in embed_views(self.backbone, batch.views)]
        pairs = [(z[i], z[j]) for i, j in view_pairs(batch.views) if i < j]
        return {"loss": torch.stack([nt_xent(a, b, self.temperature) for a, b in pairs]).mean()}
