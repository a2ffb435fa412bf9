"""BYOL: predict an EMA target network's projection of another view; no negatives.

Grill et al., "Bootstrap Your Own Latent: A New Approach to Self-Supervised Learning", NeurIPS 2020,
https://arxiv.org/abs/2006.07733, Section 3.1 and Eq. 2. Official code:
github.com/google-deepmind/deepmind-research/byol.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn, no_grad

from ssl_zoo.checks import fraction, positive
from ssl_zoo.functional import cosine_distance, ema_copy, ema_update_cosine, global_views, view_pairs
from ssl_zoo.method import Batch, Method
from ssl_zoo.nn.heads import mlp


class BYOL(Method):
    """The online network is backbone, projector and predictor; the target is an EMA of backbone and projector.

    Args:
        ema_decay: tau_base in the paper; rises to 1 over the run along a half-cosine (Section 3.3).
    """

    min_views: ClassVar[int] = 2

    def __init__(self, backbone: nn.Module, hidden_dim: int, out_dim: int, ema_decay: float):
        super().__init__(backbone)
        positive(hidden_dim=hidden_dim, out_dim=out_dim)
        fraction(ema_decay=ema_decay)
        self.projector = mlp(self.backbone.num_features, hidden_dim, out_dim)
        self.predictor = mlp(out_dim, hidden_dim, out_dim)
        self.target = ema_copy(nn.Sequential(backbone, self.projector))
        self.ema_decay = ema_decay

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """2 - 2 cos, summed over both directions (the paper's symmetric loss), mean over the batch; in [0, 8].

        More than two views: twice the mean over all predictions of a global view.
        """
        # One view at a time: each view has its own BatchNorm statistics, as in the official code.
        p = [self.predictor(self.projector(self.backbone(view))) for view in batch.views]
        with no_grad():
            t = [self.target(view) for view in global_views(batch.views)]
        losses = [cosine_distance(p[j], t[i]) for i, j in view_pairs(batch.views)]
        return {"loss": 2 * torch.stack(losses).mean()}

    def after_step(self, progress: float) -> None:
        """Updates the target."""
        online = nn.Sequential(self.backbone, self.projector)
        ema_update_cosine(self.target, online, self.ema_decay, progress)
