"""W-MSE: views of an example agree after the batch is whitened, which prevents collapse without negatives.

Ermolov, Siarohin, Sangineto, Sebe, "Whitening for Self-Supervised Representation Learning", ICML 2021,
https://arxiv.org/abs/2007.06346, Section 3. Official code: github.com/htdt/self-supervised.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn

from ssl_zoo.checks import fraction, positive
from ssl_zoo.distributed import all_gather, broadcast
from ssl_zoo.functional import cosine_distance, view_pairs
from ssl_zoo.method import Batch, Method
from ssl_zoo.nn.heads import mlp


def whiten(z: Tensor, eps: float) -> Tensor:
    """Cholesky whitening of z (N, D) in float32: centres z and solves with the Cholesky factor of its covariance.

    The covariance is mixed with `eps` times its mean variance on the diagonal, so that N <= D is well-posed too: N rows
    span N - 1 dimensions, which become white, and the others stay empty. The official code adds `eps` itself; here the
    result does not depend on the scale of z.
    """
    z = z.float() - z.float().mean(dim=0)
    with torch.autocast(z.device.type, enabled=False):
        covariance = z.T @ z / (len(z) - 1)
        ridge = covariance.diagonal().mean().clamp(min=1e-6)  # positive even if all rows are equal
        eye = torch.eye(len(covariance), device=z.device)
        factor = torch.linalg.cholesky((1 - eps) * covariance + eps * ridge * eye)
        return torch.linalg.solve_triangular(factor, z.T, upper=False).T


class WMSE(Method):
    """The projector has one hidden layer; the global batch is whitened in random groups, separately for each view.

    Args:
        whitening_size: number of rows that are whitened together, at least twice `out_dim`. A smaller batch is one
            group; the remaining rows of a larger one are distributed over its groups.
        eps: share of the diagonal in the covariance, see `whiten`.
    """

    min_views: ClassVar[int] = 2

    def __init__(self, backbone: nn.Module, hidden_dim: int, out_dim: int, whitening_size: int, eps: float):
        super().__init__(backbone)
        positive(hidden_dim=hidden_dim, out_dim=out_dim)
        fraction(eps=eps)
        if whitening_size < 2 * out_dim:
            raise ValueError(
                f"method.whitening_size={whitening_size} must be at least 2 * method.out_dim={2 * out_dim}: "
                "the covariance of fewer rows is too noisy to invert"
            )
        self.projector = mlp(self.backbone.num_features, hidden_dim, out_dim)
        self.whitening_size = whitening_size
        self.eps = eps

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """2 - 2 cos of whitened rows, mean over the global batch and all pairs of a global view and another view.

        Every process computes the loss of the whole global batch.
        """
        # The projector processes all views at once, the backbone one after the other, as in the official code.
        h = torch.cat([self.backbone(view) for view in batch.views])
        views = [all_gather(z) for z in self.projector(h).chunk(len(batch.views))]
        order = broadcast(torch.randperm(len(views[0]), device=h.device))
        groups = order.tensor_split(max(1, len(order) // self.whitening_size))
        z = [torch.cat([whiten(view[group], self.eps) for group in groups]) for view in views]
        pairs = [(z[i], z[j]) for i, j in view_pairs(batch.views) if i < j]
        return {"loss": torch.stack([cosine_distance(a, b) for a, b in pairs]).mean()}
