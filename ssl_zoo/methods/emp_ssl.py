"""EMP-SSL: many crops of each image agree with their mean, and the features of every crop span the space.

Tong, Chen, Ma, LeCun, "EMP-SSL: Towards Self-Supervised Learning in One Training Epoch", 2023,
https://arxiv.org/abs/2304.03977, Section 2. Official code: github.com/tsb0601/EMP-SSL.
"""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_zoo.checks import choice, positive
from ssl_zoo.distributed import all_gather
from ssl_zoo.functional import VIEWS_PER_BATCH_NORM, project_views
from ssl_zoo.method import Batch, Method
from ssl_zoo.nn.heads import mlp


def total_coding_rate(z: Tensor, distortion: float) -> Tensor:
    """R(Z) = 1/2 log det(I + D / (N distortion) Z^T Z), Eq. 2, in float32 even under autocast.

    Args:
        z: (..., N, D), N unit vectors of each crop.
        distortion: the square of epsilon in the paper.

    Returns:
        (...).
    """
    count, width = z.shape[-2:]
    with torch.autocast(device_type=z.device.type, enabled=False):
        z = z.float()
        # det(I + Z^T Z) = det(I + Z Z^T): the smaller of the two matrices is taken.
        gram = z @ z.mT if count < width else z.mT @ z
        identity = torch.eye(gram.shape[-1], device=z.device)
        return torch.linalg.slogdet(identity + width / (count * distortion) * gram).logabsdet / 2


class EMPSSL(Method):
    """There is neither a stop-gradient nor an EMA network; the coding rate alone prevents a collapse.

    Args:
        similarity_weight: lambda in the paper.
        distortion: the square of epsilon in the paper, see `total_coding_rate`.
        views_per_batch_norm: see `functional.project_views`.
    """

    min_views: ClassVar[int] = 2

    def __init__(
        self,
        backbone: nn.Module,
        hidden_dim: int,
        out_dim: int,
        similarity_weight: float,
        distortion: float,
        views_per_batch_norm: str = "joint",
    ):
        super().__init__(backbone)
        choice(VIEWS_PER_BATCH_NORM, views_per_batch_norm=views_per_batch_norm)
        positive(hidden_dim=hidden_dim, out_dim=out_dim, similarity_weight=similarity_weight, distortion=distortion)
        self.projector = mlp(self.backbone.num_features, hidden_dim, hidden_dim, out_dim)
        self.similarity_weight = similarity_weight
        self.distortion = distortion
        self.views_per_batch_norm = views_per_batch_norm

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Loss -mean over crops of R(Z_i) + lambda cos(Z_i, mean of the crops), Eq. 3.

        Z_i (N, D) holds the unit vectors of the i-th crop of all examples of the global batch.
        """
        z = torch.stack(project_views(self.backbone, self.projector, batch.views, self.views_per_batch_norm), dim=1)
        z = F.normalize(z.float(), dim=2)  # (B, V, D)
        similarity = F.cosine_similarity(z, z.mean(dim=1, keepdim=True), dim=2).mean()
        rate = total_coding_rate(all_gather(z).transpose(0, 1), self.distortion).mean()
        return {"loss": -rate - self.similarity_weight * similarity, "coding_rate": rate, "similarity": similarity}
