"""DCL: SimCLR's loss without the positive pair in the denominator, which makes it less dependent on batch size.

Yeh et al., "Decoupled Contrastive Learning", ECCV 2022, https://arxiv.org/abs/2110.06848, Section 3: DCL, and
DCLW, which weights the positive term by a negative von Mises-Fisher function.
"""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_zoo.checks import choice, positive
from ssl_zoo.distributed import all_gather, rank, world_size
from ssl_zoo.functional import VIEWS_PER_BATCH_NORM, project_views, similarities, view_pairs
from ssl_zoo.method import Batch, Method
from ssl_zoo.nn.heads import mlp


def dcl_loss(z1: Tensor, z2: Tensor, temperature: float, sigma: float | None) -> Tensor:
    """Decoupled contrastive loss in float32, mean over the 2B queries (the paper sums).

    Negatives come from all processes; both views of a query's own example are excluded.

    Args:
        z1: (B, D) projections of the first view.
        z2: (B, D) projections of the second view of the same examples.
        temperature: divides the cosine similarities.
        sigma: None for DCL. For DCLW, the positive term of example i is weighted by 2 - exp(cos_i / sigma) / (mean of
            this over the global batch), without gradient.
    """
    z1, z2 = F.normalize(z1.float(), dim=1), F.normalize(z2.float(), dim=1)
    agreement = (z1 * z2).sum(dim=1)  # (B,)
    weight = torch.ones_like(agreement)
    if sigma is not None:
        scores = all_gather(agreement.detach()) / sigma  # (BW,)
        weight = 2 - (len(scores) * scores.softmax(dim=0)).chunk(world_size())[rank()]
    queries = torch.cat([z1, z2])
    keys = all_gather(queries)  # (2BW, D)
    example = (torch.arange(len(queries), device=z1.device) % len(z1)) + rank() * len(z1)
    own = example[:, None] == all_gather(example)  # of the same example, the query itself included
    negatives = (similarities(queries, keys) / temperature).masked_fill(own, -torch.inf).logsumexp(dim=1)
    return negatives.mean() - (weight * agreement).mean() / temperature


class DCL(Method):
    """SimCLR with a decoupled loss.

    Args:
        sigma: None for DCL, a number for DCLW.
        views_per_batch_norm: see `functional.project_views`.
    """

    min_views: ClassVar[int] = 2

    def __init__(
        self,
        backbone: nn.Module,
        hidden_dim: int,
        out_dim: int,
        temperature: float,
        sigma: float | None,
        views_per_batch_norm: str = "joint",
    ):
        super().__init__(backbone)
        choice(VIEWS_PER_BATCH_NORM, views_per_batch_norm=views_per_batch_norm)
        positive(hidden_dim=hidden_dim, out_dim=out_dim, temperature=temperature)
        if sigma is not None:
            positive(sigma=sigma)
        self.projector = mlp(self.backbone.num_features, hidden_dim, out_dim)
        self.temperature = temperature
        self.sigma = sigma
        self.views_per_batch_norm = views_per_batch_norm

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """`dcl_loss`, mean over all pairs of a global view and another view."""
        z = project_views(self.backbone, self.projector, batch.views, self.views_per_batch_norm)
        pairs = [(z[i], z[j]) for i, j in view_pairs(batch.views) if i < j]
        return {"loss": torch.stack([dcl_loss(a, b, self.temperature, self.sigma) for a, b in pairs]).mean()}
