"""SimCLR: two views of an example attract each other, all other examples of the batch are negatives.

Chen, Kornblith, Norouzi, Hinton, "A Simple Framework for Contrastive Learning of Visual Representations", ICML 2020,
https://arxiv.org/abs/2002.05709, Algorithm 1. Official code: github.com/google-research/simclr.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn

from ssl_zoo.checks import choice, positive
from ssl_zoo.distributed import all_gather, own_rows
from ssl_zoo.functional import VIEWS_PER_BATCH_NORM, info_nce, project_views, view_pairs
from ssl_zoo.method import Batch, Method
from ssl_zoo.nn.heads import mlp


def nt_xent(z1: Tensor, z2: Tensor, temperature: float) -> Tensor:
    """NT-Xent (Eq. 1), mean over the 2B queries; z1, z2 (B, D) are projections of two views of the same B examples.

    Negatives come from all processes, so that W processes with B / W examples each give the loss of one with B.
    """
    z = torch.cat([z1, z2])  # (2B, D)
    keys = all_gather(z)  # (2BW, D)
    own = own_rows(z)  # index of each query among the keys
    itself = own[:, None] == torch.arange(len(keys), device=z.device)
    return info_nce(z, keys, positives=own.roll(len(z1)), temperature=temperature, excluded=itself)


class SimCLR(Method):
    """NT-Xent on the output of a projector with one hidden layer (Section 4.2).

    Args:
        hidden_norm: whether BatchNorm follows the projector's hidden layer.
        last_norm: whether BatchNorm follows the projector's last layer.
        views_per_batch_norm: see `functional.project_views`.
    """

    min_views: ClassVar[int] = 2

    def __init__(
        self,
        backbone: nn.Module,
        hidden_dim: int,
        out_dim: int,
        temperature: float,
        hidden_norm: bool = True,
        last_norm: bool = False,
        views_per_batch_norm: str = "joint",
    ):
        super().__init__(backbone)
        choice(VIEWS_PER_BATCH_NORM, views_per_batch_norm=views_per_batch_norm)
        positive(hidden_dim=hidden_dim, out_dim=out_dim, temperature=temperature)
        self.projector = mlp(
            self.backbone.num_features, hidden_dim, out_dim, hidden_norm=hidden_norm, last_norm=last_norm
        )
        self.temperature = temperature
        self.views_per_batch_norm = views_per_batch_norm

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """NT-Xent, mean over all pairs of a global view and another view."""
        z = project_views(self.backbone, self.projector, batch.views, self.views_per_batch_norm)
        pairs = [(z[i], z[j]) for i, j in view_pairs(batch.views) if i < j]
        return {"loss": torch.stack([nt_xent(a, b, self.temperature) for a, b in pairs]).mean()}
