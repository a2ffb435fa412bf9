"""SupCon: all views of all examples of a class attract each other, other classes are negatives.

Khosla et al., "Supervised Contrastive Learning", NeurIPS 2020, https://arxiv.org/abs/2004.11362, Eq. 2 (L_out).
Official code: github.com/google-research/google-research/tree/master/supcon.
Letters: B batch, V views, G global views, W processes, D width.
"""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_zoo.checks import choice, positive
from ssl_zoo.distributed import all_gather, rank
from ssl_zoo.functional import VIEWS_PER_BATCH_NORM, global_views, mean_over, project_views, similarities
from ssl_zoo.method import Batch, Method
from ssl_zoo.nn.heads import mlp


def supcon_loss(z: list[Tensor], num_global: int, labels: Tensor, temperature: float) -> Tensor:
    """L_out in float32, mean over the anchors that have a positive; 0 if no anchor of the global batch has one.

    The paper sums over anchors; the official code uses the mean too, but multiplies it by the temperature. Anchors are
    all views of this process, keys the global views of all processes; an anchor is not its own key.

    Args:
        z: V projections (B, D) of the same examples, global views first.
        num_global: number of global views.
        labels: (B,) int64.
        temperature: divides the cosine similarities.
    """
    z = [F.normalize(view.float(), dim=1) for view in z]
    anchors, keys = torch.cat(z), all_gather(torch.cat(z[:num_global]))  # (VB, D), (WGB, D)
    same = labels.repeat(len(z))[:, None] == all_gather(labels.repeat(num_global))
    shared = num_global * len(labels)  # anchors that are also keys
    column = torch.arange(len(anchors), device=labels.device)
    column = torch.where(column < shared, column + rank() * shared, -1)
    itself = column[:, None] == torch.arange(len(keys), device=labels.device)
    logits = (similarities(anchors, keys) / temperature).masked_fill(itself, -torch.inf)
    log_probabilities = F.log_softmax(logits, dim=1)
    positives = same & ~itself
    counts = positives.sum(dim=1)
    losses = -log_probabilities.masked_fill(~positives, 0).sum(dim=1) / counts.clamp(min=1)
    return mean_over(losses, counts > 0)


class SupCon(Method):
    """SimCLR with a loss that uses labels; with all labels different and two views it equals SimCLR.

    Args:
        views_per_batch_norm: see `functional.project_views`.
    """

    min_views: ClassVar[int] = 2
    uses_labels: ClassVar[bool] = True

    def __init__(
        self,
        backbone: nn.Module,
        hidden_dim: int,
        out_dim: int,
        temperature: float,
        views_per_batch_norm: str = "joint",
    ):
        super().__init__(backbone)
        choice(VIEWS_PER_BATCH_NORM, views_per_batch_norm=views_per_batch_norm)
        positive(hidden_dim=hidden_dim, out_dim=out_dim, temperature=temperature)
        self.projector = mlp(self.backbone.num_features, hidden_dim, out_dim)
        self.temperature = temperature
        self.views_per_batch_norm = views_per_batch_norm

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """`supcon_loss` of all views together, as in the paper; local crops are anchors, never keys."""
        z = project_views(self.backbone, self.projector, batch.views, self.views_per_batch_norm)
        return {"loss": supcon_loss(z, len(global_views(batch.views)), batch.labels, self.temperature)}
