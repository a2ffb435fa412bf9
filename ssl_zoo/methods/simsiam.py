"""SimSiam: predict the projection of another view, with a stop-gradient; neither negatives nor a second network.

Chen & He, "Exploring Simple Siamese Representation Learning", CVPR 2021, https://arxiv.org/abs/2011.10566,
Algorithm 1, Eqs. 1-2 and Section 3 (heads). Official code: github.com/facebookresearch/simsiam.
"""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_zoo.checks import positive
from ssl_zoo.functional import view_pairs
from ssl_zoo.method import Batch, Method
from ssl_zoo.nn.heads import mlp


class SimSiam(Method):
    """The projector has three layers and ends in BatchNorm; the predictor is a bottleneck with a constant rate."""

    min_views: ClassVar[int] = 2
    constant_rate: ClassVar[tuple[str, ...]] = ("predictor",)

    def __init__(self, backbone: nn.Module, hidden_dim: int, out_dim: int, predictor_hidden_dim: int):
        super().__init__(backbone)
        positive(hidden_dim=hidden_dim, out_dim=out_dim, predictor_hidden_dim=predictor_hidden_dim)
        layers = mlp(self.backbone.num_features, hidden_dim, hidden_dim, out_dim, last_norm=True)
        # The last norm has no scale and shift, as in the official code.
        self.projector = nn.Sequential(*layers[:-1], nn.BatchNorm1d(out_dim, affine=False))
        self.predictor = mlp(out_dim, predictor_hidden_dim, out_dim)

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """-cos(p, z) without gradient in z (Eqs. 1-2), mean over the batch and both directions; in [-1, 1].

        More than two views: mean over all predictions of a global view.
        """
        # One view at a time: each view has its own BatchNorm statistics, as in the official code.
        z = [self.projector(self.backbone(view)) for view in batch.views]
        p = [self.predictor(x) for x in z]
        pairs = view_pairs(batch.views)
        cosines = [F.cosine_similarity(p[j].float(), z[i].detach().float(), dim=1).mean() for i, j in pairs]
        return {"loss": -torch.stack(cosines).mean()}
