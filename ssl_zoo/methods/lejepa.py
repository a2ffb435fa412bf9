"""LeJEPA: views agree, and SIGReg makes the embeddings an isotropic Gaussian; no teacher, no predictor, one weight.

Balestriero, LeCun, "LeJEPA: Provable and Scalable Self-Supervised Learning Without the Heuristics", 2025,
https://arxiv.org/abs/2511.08544, Sections 4 (SIGReg) and 5 (LeJEPA), Algorithms 1 and 2. Written from the paper.
Official code: github.com/galilai-group/lejepa.
"""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_zoo.checks import choice, fraction, positive
from ssl_zoo.distributed import all_reduce_mean, broadcast, world_size
from ssl_zoo.functional import VIEWS_PER_BATCH_NORM, global_views, project_views
from ssl_zoo.method import Batch, Method
from ssl_zoo.nn.heads import mlp


def epps_pulley(x: Tensor, num_knots: int, max_frequency: float) -> Tensor:
    """Epps-Pulley statistic (M,): distance of each column of x (B, M) from N(0, 1); grows with the global batch.

    N * integral over [-max_frequency, max_frequency] of |ecf(t) - phi(t)|^2 phi(t) by the trapezoidal rule, where ecf
    is the empirical characteristic function of all N = W * B samples, and phi(t) = exp(-t^2 / 2) that of the Gaussian.
    The integrand is even, so `num_knots` points on the positive half suffice.
    """
    t = torch.linspace(0, max_frequency, num_knots, device=x.device)
    angles = x.unsqueeze(-1) * t  # (B, M, T)
    real, imaginary = all_reduce_mean(torch.stack([angles.cos().mean(dim=0), angles.sin().mean(dim=0)]))
    phi = torch.exp(-t.square() / 2)
    distance = (real - phi).square() + imaginary.square()
    return 2 * torch.trapezoid(distance * phi, t) * len(x) * world_size()


def sigreg(z: Tensor, directions: Tensor, num_knots: int, max_frequency: float) -> Tensor:
    """Mean Epps-Pulley statistic of z (B, D) along `directions` (D, M) of any length, in float32."""
    with torch.autocast(z.device.type, enabled=False):
        x = z.float() @ F.normalize(directions, dim=0)  # (B, M)
    return epps_pulley(x, num_knots, max_frequency).mean()


class LeJEPA(Method):
    """The projector has three layers; each view is attracted to the mean of the global views.

    Args:
        sigreg_weight: lambda in the paper; conf/method/lejepa.yaml explains the other numbers.
        views_per_batch_norm: see `functional.project_views`.
    """

    min_views: ClassVar[int] = 2

    def __init__(
        self,
        backbone: nn.Module,
        hidden_dim: int,
        out_dim: int,
        sigreg_weight: float,
        num_directions: int,
        num_knots: int,
        max_frequency: float,
        views_per_batch_norm: str = "joint",
    ):
        super().__init__(backbone)
        choice(VIEWS_PER_BATCH_NORM, views_per_batch_norm=views_per_batch_norm)
        positive(hidden_dim=hidden_dim, out_dim=out_dim, num_directions=num_directions, max_frequency=max_frequency)
        fraction(sigreg_weight=sigreg_weight)
        if num_knots < 2:
            raise ValueError(f"method.num_knots={num_knots} must be 2 or more: the integral needs both ends")
        self.projector = mlp(self.backbone.num_features, hidden_dim, hidden_dim, out_dim)
        self.sigreg_weight = sigreg_weight
        self.num_directions = num_directions
        self.num_knots = num_knots
        self.max_frequency = max_frequency
        self.views_per_batch_norm = views_per_batch_norm

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """(1 - lambda) * invariance + lambda * SIGReg.

        Invariance is the squared distance to the mean of the global views, mean over views, batch and (as in the
        official code) features. SIGReg is the mean over views and directions.
        """
        z = torch.stack(
            project_views(self.backbone, self.projector, batch.views, self.views_per_batch_norm)
        ).float()  # (V, B, D)
        centre = z[: len(global_views(batch.views))].mean(dim=0)
        invariance = (z - centre).square().mean()
        # New random directions at each step, the same on all processes (Section 4.3).
        directions = broadcast(torch.randn(z.shape[-1], self.num_directions, device=z.device))
        gaussianity = torch.stack([sigreg(x, directions, self.num_knots, self.max_frequency) for x in z]).mean()
        loss = (1 - self.sigreg_weight) * invariance + self.sigreg_weight * gaussianity
        return {"loss": loss, "invariance": invariance, "sigreg": gaussianity}
