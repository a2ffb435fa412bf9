"""All4One: NNCLR, plus a contrast between centroids of several neighbours, plus decorrelated features.

Estepa, Sarasua, Nagarajan, Radeva, "All4One: Symbiotic Neighbour Contrastive Learning via Self-Attention and Redundancy
Reduction", ICCV 2023, https://arxiv.org/abs/2303.09417, Section 3. Official code: all4one.py in
github.com/vturrisi/solo-learn. Letters: B batch, W processes, D width, K keys, N neighbours.
"""

import math
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn, no_grad

from ssl_zoo.checks import fraction, positive
from ssl_zoo.distributed import all_gather, own_rows
from ssl_zoo.functional import ema_copy, ema_update_cosine, global_views, info_nce, off_diagonal, view_pairs
from ssl_zoo.method import Batch, Method
from ssl_zoo.nn.heads import mlp
from ssl_zoo.nn.queue import Queue

MIN_FEATURE_NORM = 1e-2
"""Lower bound on the norm of a feature over the batch in `feature_contrast`. Below it, as when all examples are equal,
the gradient of the normalisation would dominate. A feature of standard deviation 1 has norm sqrt(B)."""


def batch_info_nce(queries: Tensor, keys: Tensor, temperature: float) -> Tensor:
    """InfoNCE of queries (B, D) with the keys (B, D) of all processes; the key of the same example is the positive."""
    own = own_rows(queries)
    return info_nce(queries, all_gather(keys), own, temperature, excluded=None)


def feature_contrast(pairs: list[tuple[Tensor, Tensor]]) -> Tensor:
    """(sqrt(on) + sqrt(off)) / 2, where on and off are the mean squares of I - C on and off its diagonal, in float32.

    C (D, D) holds the cosine similarity of each feature of t with each feature of z over the global batch, not centred;
    on and off are means over the pairs (t, z), both (B, D).
    """
    on, off = [], []
    for t, z in pairs:
        with torch.autocast(device_type=z.device.type, enabled=False):
            t, z = (F.normalize(all_gather(x.float()), dim=0, eps=MIN_FEATURE_NORM) for x in (t, z))
            c = t.T @ z
        on.append((1 - c.diagonal()).square().mean())
        off.append(off_diagonal(c).square().sum() / (c.numel() - len(c)))
    means = torch.stack([torch.stack(on).mean(), torch.stack(off).mean()])
    return means.clamp_min(1e-12).sqrt().mean()  # clamped: the gradient of sqrt is infinite at 0


def sinusoids(length: int, dim: int) -> Tensor:
    """Position encodings (length, dim) of Vaswani et al., 2017; sines first, then cosines."""
    frequencies = torch.exp(-math.log(10_000) * torch.arange(0, dim, 2) / dim)
    angles = torch.arange(length)[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=1)


class All4One(Method):
    """A transformer turns neighbours into centroids; the queue holds the target's projections of the first view.

    Differs from the official code: position encodings run along the neighbours (official: along the features), the
    transformer has no dropout, so that k processes equal one, and no separate learning rate, and the correlations are
    those of the global batch.

    Args:
        weights: of neighbour, centroid and feature contrast.
        ema_decay: of the target; rises to 1 over the run along a half-cosine.
    """

    min_views: ClassVar[int] = 2
    positions: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        hidden_dim: int,
        out_dim: int,
        predictor_hidden_dim: int,
        queue_size: int,
        num_neighbours: int,
        temperature: float,
        weights: list[float],
        ema_decay: float,
    ):
        super().__init__(backbone)
        positive(hidden_dim=hidden_dim, out_dim=out_dim, predictor_hidden_dim=predictor_hidden_dim)
        positive(queue_size=queue_size, num_neighbours=num_neighbours, temperature=temperature)
        fraction(ema_decay=ema_decay)
        if out_dim % 8:
            raise ValueError(f"method.out_dim={out_dim} must be a multiple of 8, the number of attention heads")
        if num_neighbours > queue_size:
            raise ValueError(f"method.num_neighbours={num_neighbours} must not exceed method.queue_size={queue_size}")
        if len(weights) != 3 or min(weights) < 0:
            raise ValueError(f"method.weights={weights} must be three numbers of 0 or more, e.g. [0.5,0.5,5]")
        self.projector = mlp(self.backbone.num_features, hidden_dim, hidden_dim, out_dim, last_norm=True)
        self.predictor = mlp(out_dim, predictor_hidden_dim, out_dim)
        self.centroid_predictor = mlp(out_dim, predictor_hidden_dim, out_dim)
        layer = nn.TransformerEncoderLayer(out_dim, 8, 2 * out_dim, dropout=0.0, batch_first=True)
        self.transformer = nn.TransformerEncoder(layer, 3, enable_nested_tensor=False)
        self.register_buffer("positions", sinusoids(num_neighbours, out_dim), persistent=False)
        self.target = ema_copy(nn.Sequential(backbone, self.projector))
        self.queue = Queue(queue_size, out_dim)
        self.num_neighbours = num_neighbours
        self.temperature = temperature
        self.weights = weights
        self.ema_decay = ema_decay

    def centroid(self, first: Tensor, rest: Tensor) -> Tensor:
        """Output (B, D) of the transformer at `first` (B, D), which attends to `rest` (B, N - 1, D)."""
        sequence = torch.cat([first.unsqueeze(1), rest], dim=1) + self.positions
        return self.transformer(sequence)[:, 0]

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Weighted sum of the three losses, each a mean over both directions.

        More than two views: mean over all pairs of a global view and another view. Centroids need neighbours on both
        sides, so their mean is over the pairs of global views.
        """
        teacher_views = global_views(batch.views)
        z = [self.projector(self.backbone(view)) for view in batch.views]
        p = [self.predictor(x) for x in z]
        with no_grad():
            t = [F.normalize(self.target(view).float(), dim=1) for view in teacher_views]
        near = [self.queue.nearest(x, self.num_neighbours) for x in t]
        centroids = [self.centroid(n[:, 0], n[:, 1:]) for n in near]
        # The paper's shift: the prediction takes the first place and the last neighbour is dropped.
        mixed = [self.centroid(self.centroid_predictor(x), n[:, :-1]) for x, n in zip(z, near, strict=False)]
        pairs = view_pairs(batch.views)
        neighbour = torch.stack([batch_info_nce(near[i][:, 0], p[j], self.temperature) for i, j in pairs]).mean()
        teacher_pairs = view_pairs(teacher_views)
        centroid = torch.stack(
            [batch_info_nce(centroids[i], mixed[j], self.temperature) for i, j in teacher_pairs]
        ).mean()
        feature = feature_contrast([(t[i], z[j]) for i, j in pairs])
        if self.training:
            self.queue.push(t[0], batch.indices)
        loss = self.weights[0] * neighbour + self.weights[1] * centroid + self.weights[2] * feature
        return {"loss": loss, "neighbour": neighbour, "centroid": centroid, "feature": feature}

    def after_step(self, progress: float) -> None:
        """Updates the target."""
        online = nn.Sequential(self.backbone, self.projector)
        ema_update_cosine(self.target, online, self.ema_decay, progress)
