"""CLID: how well clusters of the features can be predicted, and how many dimensions the features fill.

Lu et al., "Using Representation Expressiveness and Learnability to Evaluate Self-Supervised Learning Methods", TMLR
2023, https://arxiv.org/abs/2206.01251. Cluster learnability is the accuracy of nearest neighbours that predict the
clusters found by k-means; expressiveness is the intrinsic dimension, by Facco, d'Errico, Rodriguez, Laio, "Estimating
the intrinsic dimension of datasets by a minimal neighborhood information", Scientific Reports 7 (2017),
https://arxiv.org/abs/1803.06992. CLID is the sum of the two, each standardised over the encoders that are compared, so
one encoder alone has none. Number of clusters, neighbours and the split into halves are ours. Letters: N examples, D
width.
"""

import torch
from torch import Tensor


def learnability(x: Tensor, clusters: int, k: int) -> float:
    """Share of the second half of x (N, D) whose cluster is the most frequent one of k neighbours in the first half.

    Args:
        x: features, in random order.
        clusters: of k-means, which sees all examples; at most N.
        k: neighbours, at most N / 2; by Euclidean distance, one vote each.
    """
    from sklearn.cluster import KMeans  # slow to import
    from sklearn.neighbors import KNeighborsClassifier

    points = x.double().cpu().numpy()
    labels = KMeans(clusters, n_init=1, random_state=0).fit_predict(points)
    half = len(points) // 2
    return float(KNeighborsClassifier(k).fit(points[:half], labels[:half]).score(points[half:], labels[half:]))


def intrinsic_dimension(x: Tensor) -> float:
    """Dimension of the points x (N, D), N > 2, by the ratio of the distances to their two nearest neighbours.

    The ratios follow a Pareto law whose exponent is the dimension; this is its maximum likelihood, (N - 1) / sum of log
    ratios, without bias. Points that coincide with another are left out.

    Returns:
        NaN if fewer than two points are left, or all ratios are 1.
    """
    x = x.double().unique(dim=0)
    if len(x) < 3:
        return float("nan")
    nearest = []
    for rows in x.split(1024):
        nearest.append(torch.cdist(rows, x, compute_mode="donot_use_mm_for_euclid_dist").topk(3, largest=False).values)
    distances = torch.cat(nearest)[:, 1:]  # the nearest one is the point itself
    total = (distances[:, 1] / distances[:, 0]).log().sum().item()
    return (len(x) - 1) / total if total > 0 else float("nan")
