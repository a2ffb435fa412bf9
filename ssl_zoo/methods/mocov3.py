"""MoCo v3: InfoNCE between predictions and an EMA network's projections of the same batch; no queue.

Chen, Xie, He, "An Empirical Study of Training Self-Supervised Vision Transformers", ICCV 2021,
https://arxiv.org/abs/2104.02057, Algorithm 1 and Section 3. Official code: github.com/facebookresearch/moco-v3.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn, no_grad

from ssl_zoo.checks import fraction, positive
from ssl_zoo.distributed import all_gather, own_rows
from ssl_zoo.functional import ema_copy, ema_update_cosine, global_views, info_nce, view_pairs
from ssl_zoo.method import Batch, Method
from ssl_zoo.nn.heads import mlp


class MoCoV3(Method):
    """Queries come from backbone, projector, predictor; keys from the target, an EMA of backbone and projector.

    The heads are those of the official code for ResNets, except for a bias in the predictor's last layer. For ViTs the
    official code has one more projector layer, a BatchNorm without scale and shift at the end of the predictor, and a
    frozen patch projection (Section 4.2); here heads are the same for all backbones, and the patch projection learns.

    Args:
        ema_decay: of the target; rises to 1 over the run along a half-cosine, as in the official code.
    """

    min_views: ClassVar[int] = 2

    def __init__(self, backbone: nn.Module, hidden_dim: int, out_dim: int, temperature: float, ema_decay: float):
        super().__init__(backbone)
        positive(hidden_dim=hidden_dim, out_dim=out_dim, temperature=temperature)
        fraction(ema_decay=ema_decay)
        layers = mlp(self.backbone.num_features, hidden_dim, out_dim, last_norm=True)
        self.projector = nn.Sequential(*layers[:-1], nn.BatchNorm1d(out_dim, affine=False))
        self.predictor = mlp(out_dim, hidden_dim, out_dim)
        self.target = ema_copy(nn.Sequential(backbone, self.projector))
        self.temperature = temperature
        self.ema_decay = ema_decay

    def contrast(self, q: Tensor, k: Tensor) -> Tensor:
        """2 * temperature * InfoNCE (Algorithm 1) of q (B, D) with the keys k (WB, D) of all processes."""
        own = own_rows(q)
        return 2 * self.temperature * info_nce(q, k, own, self.temperature, excluded=None)

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """`contrast`, summed over both directions as in the paper; more views: twice the mean over all pairs."""
        q = [self.predictor(self.projector(self.backbone(view))) for view in batch.views]
        with no_grad():
            k = [all_gather(self.target(view)) for view in global_views(batch.views)]
        losses = [self.contrast(q[j], k[i]) for i, j in view_pairs(batch.views)]
        return {"loss": 2 * torch.stack(losses).mean()}

    def after_step(self, progress: float) -> None:
        """Updates the target."""
        online = nn.Sequential(self.backbone, self.projector)
        ema_update_cosine(self.target, online, self.ema_decay, progress)
