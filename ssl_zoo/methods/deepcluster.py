"""DeepCluster-v2: cluster the features of the whole data set several times in a run; predict each example's cluster.

Caron, Misra, Mairal, Goyal, Bojanowski, Joulin, "Unsupervised Learning of Visual Features by Contrasting Cluster
Assignments", NeurIPS 2020, https://arxiv.org/abs/2006.09882, Appendix D; the idea: Caron et al., "Deep Clustering for
Unsupervised Learning of Visual Features", ECCV 2018, https://arxiv.org/abs/1807.05520. Official code:
github.com/facebookresearch/swav (main_deepclusterv2.py).
Letters: B batch, n examples, D width, C parallel clusterings, K prototypes (centroids) each.
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
    """(n,) int64, the centroid (K, D) with the largest dot product for each row of x (n, D)."""
    # In chunks, because the (n, K) matrix can be large.
    return torch.cat([(chunk @ centroids.T).argmax(dim=1) for chunk in x.split(16384)])


def spherical_kmeans(x: Tensor, count: int, iterations: int) -> tuple[Tensor, Tensor]:
    """Clusters the unit vectors x (n, D) by k-means with cosine similarity, identically on all processes.

    Centroids start at random examples, with repetition if there are too few; an empty cluster keeps its centroid.

    Returns:
        Unit centroids (count, D) and assignments (n,) int64.
    """
    order = broadcast(torch.randperm(len(x), device=x.device))
    centroids = x[order[torch.arange(count, device=x.device) % len(x)]]
    for _ in range(iterations):
        assigned = nearest_centroid(x, centroids)
        sums = torch.zeros_like(centroids).index_add_(0, assigned, x)
        nonempty = assigned.bincount(minlength=count).unsqueeze(1) > 0
        centroids = torch.where(nonempty, F.normalize(sums, dim=1), centroids)
    centroids = broadcast(centroids)  # sums on a GPU are not deterministic
    return centroids, broadcast(nearest_centroid(x, centroids))


class DeepCluster(Method):
    """Keeps the features of the first view of the whole data set in a bank, and clusters them `num_rounds` times.

    Differs from the official code, which first iterates over the data once to fill the bank: here the first clustering
    uses the first batch only, and an example unknown to the latest clustering is assigned to its nearest centroid. In
    the official code, clusterings alternate between the features of two views; here they differ by their random
    initialisation only.

    Args:
        num_clusterings: number of parallel k-means clusterings, whose losses are averaged.
        num_rounds: number of times per run that the bank is clustered.
        num_train: number of examples in the data set.
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
        self.temperature = temperature
        self.num_rounds = num_rounds
        self.kmeans_iterations = kmeans_iterations

    def get_extra_state(self) -> Tensor:
        """Stores the round in checkpoints; not a buffer, because reading one from a GPU each step synchronises."""
        return torch.tensor(self.round)

    def set_extra_state(self, state: Tensor) -> None:
        """Restores the round from a checkpoint."""
        self.round = int(state)

    @torch.no_grad()
    def update_bank(self, z: Tensor, indices: Tensor, progress: float) -> None:
        """Writes z (B, D) of all processes into the bank, and clusters the bank when a new round begins."""
        where = all_gather(indices)
        self.bank[where] = all_gather(z)
        self.known.index_fill_(0, where, True)  # `known[where] = True` would copy the scalar to the GPU and synchronise
        current_round = int(progress * self.num_rounds)
        if current_round == self.round:
            return
        self.round = current_round
        x = self.bank[self.known]
        for centroids, assignments in zip(self.centroids, self.assignments, strict=True):
            found, assigned = spherical_kmeans(x, len(centroids), self.kmeans_iterations)
            centroids.copy_(found)
            assignments[self.known] = assigned

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Cross-entropy of cosine similarities to the centroids, mean over batch, views and clusterings."""
        # All views in one pass of the projector, so that they share BatchNorm statistics, as in the official code.
        z = self.projector(torch.cat(embed_views(self.backbone, batch.views)))
        with torch.autocast(device_type=z.device.type, enabled=False):
            z = F.normalize(z.float(), dim=1)
            first = z.detach()[: len(batch.indices)]
            if self.training:
                self.update_bank(first, batch.indices, progress)
            losses = []
            for centroids, assignments in zip(self.centroids, self.assignments, strict=True):
                target = assignments[batch.indices]
                target = torch.where(target < 0, nearest_centroid(first, centroids), target)
                logits = z @ centroids.T / self.temperature
                losses.append(F.cross_entropy(logits, target.repeat(len(batch.views))))
        return {"loss": torch.stack(losses).mean()}
