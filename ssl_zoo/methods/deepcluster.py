"""DeepCluster-v2: cluster the features of the whole data set now and then, and predict each example's clusters.

Caron, Misra, Mairal, Goyal, Bojanowski, Joulin, "Unsupervised Learning of Visual Features by Contrasting Cluster
Assignments", NeurIPS 2020, https://arxiv.org/abs/2006.09882, Appendix D; the idea: Caron et al., "Deep Clustering for
Unsupervised Learning of Visual Features", ECCV 2018, https://arxiv.org/abs/1807.05520. Official code:
github.com/facebookresearch/swav (main_deepclusterv2.py).
Letters: B batch, n examples, D width, C clusterings side by side, K prototypes (centroids) each.
"""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_zoo.checks import positive
from ssl_zoo.distributed import all_gather, broadcast
from ssl_zoo.functional import embed_views
from ssl_zoo.method import Batch, Method
from ssl_zoo.nn.heads import mlp


def nearest_centroid(x: Tensor, centroids: Tensor) -> Tensor:
    """Which centroid has the largest dot product: (n, D), (K, D) -> (n,). In parts, since n * K can be large."""
    return torch.cat([(part @ centroids.T).argmax(dim=1) for part in x.split(16384)])


def spherical_kmeans(x: Tensor, count: int, iterations: int) -> tuple[Tensor, Tensor]:
    """Unit centroids (count, D) and assignments (n,) of unit vectors x (n, D), the same on all processes.

    It starts from examples drawn at random, again and again if there are too few; a centroid nobody chooses stays.
    """
    order = broadcast(torch.randperm(len(x), device=x.device))
    centroids = x[order[torch.arange(count, device=x.device) % len(x)]]
    for _ in range(iterations):
        assigned = nearest_centroid(x, centroids)
        sums = torch.zeros_like(centroids).index_add_(0, assigned, x)
        taken = assigned.bincount(minlength=count).unsqueeze(1) > 0
        centroids = torch.where(taken, F.normalize(sums, dim=1), centroids)
    centroids = broadcast(centroids)  # the order of a GPU's sums is left to chance
    return centroids, broadcast(nearest_centroid(x, centroids))


class DeepCluster(Method):
    """The features of the first view are kept for the whole data set; `num_rounds` times in a run they are clustered.

    Differs from the official code, which first runs through the data once to fill the bank: here the first clustering
    is that of the first batch, and an example that the last clustering did not know belongs to the nearest centroid.
    There, clusterings alternate between the features of two views; here they differ by their random start alone.
    """

    min_views: ClassVar[int] = 2
    bank: Tensor
    known: Tensor
    centroids: Tensor
    assignments: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        hidden_dim: int,
        out_dim: int,
        num_prototypes: int,
        num_clusterings: int,
        temperature: float,
        num_rounds: int,
        kmeans_iterations: int,
        num_train: int,
    ):
        """num_clusterings: k-means side by side, whose losses are averaged; num_train: examples in the data set."""
        super().__init__(backbone)
        positive(hidden_dim=hidden_dim, out_dim=out_dim, num_prototypes=num_prototypes, temperature=temperature)
        positive(num_clusterings=num_clusterings, num_rounds=num_rounds, kmeans_iterations=kmeans_iterations)
        positive(num_train=num_train)
        self.projector = mlp(self.backbone.num_features, hidden_dim, out_dim)
        self.register_buffer("bank", torch.zeros(num_train, out_dim))
        self.register_buffer("known", torch.zeros(num_train, dtype=torch.bool))
        self.register_buffer("centroids", torch.zeros(num_clusterings, num_prototypes, out_dim))
        self.register_buffer("assignments", torch.full((num_clusterings, num_train), -1))
        self.round = -1
        self.temperature, self.num_rounds, self.kmeans_iterations = temperature, num_rounds, kmeans_iterations

    def get_extra_state(self) -> Tensor:
        """The round. It is no buffer, for each step reads it, and on a GPU would wait for it."""
        return torch.tensor(self.round)

    def set_extra_state(self, state: Tensor) -> None:
        self.round = int(state)

    @torch.no_grad()
    def remember(self, z: Tensor, indices: Tensor, progress: float) -> None:
        """Puts z (B, D) of all processes into the bank, and clusters it when a new round begins."""
        where = all_gather(indices)
        self.bank[where] = all_gather(z)
        self.known.index_fill_(0, where, True)  # by index a number is copied there, for which a GPU is waited for
        now = int(progress * self.num_rounds)
        if now == self.round:
            return
        self.round = now
        x = self.bank[self.known]
        for centroids, assignments in zip(self.centroids, self.assignments, strict=True):
            found, assigned = spherical_kmeans(x, len(centroids), self.kmeans_iterations)
            centroids.copy_(found)
            assignments[self.known] = assigned

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Cross-entropy of each view's cosine similarities to the centroids, mean over batch, views and clusterings."""
        # All views in one pass of the projector, as in the official code: its BatchNorm sees them together.
        z = self.projector(torch.cat(embed_views(self.backbone, batch.views)))
        with torch.autocast(device_type=z.device.type, enabled=False):
            z = F.normalize(z.float(), dim=1)
            first = z.detach()[: len(batch.indices)]
            if self.training:
                self.remember(first, batch.indices, progress)
            losses = []
            for centroids, assignments in zip(self.centroids, self.assignments, strict=True):
                target = assignments[batch.indices]
                target = torch.where(target < 0, nearest_centroid(first, centroids), target)
                logits = z @ centroids.T / self.temperature
                losses.append(F.cross_entropy(logits, target.repeat(len(batch.views))))
        return {"loss": torch.stack(losses).mean()}
