"""Nearest neighbours among features that are raw, normalised, centred or whitened: what a similarity depends on.

Centring removes a direction that all features share, as those of text do (Mu, Viswanath, "All-but-the-Top", ICLR 2018,
https://arxiv.org/abs/1702.01417, Section 2). Whitening gives all directions the same weight (Su et al., "Whitening
Sentence Representations for Better Semantics and Faster Retrieval", 2021, https://arxiv.org/abs/2103.15316, Section 3).
Letters: N training examples, M queries, D width, C classes.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_zoo.evaluators.base import EvalContext, warn_once
from ssl_zoo.evaluators.proportion import Proportion


def whitening(bank: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (D,) and matrix (D, d) with which (x - mean) @ matrix has the covariance I over bank (N, D).

    Directions whose variance is below a millionth of the largest are left out: they hold rounding errors.
    """
    mean = bank.mean(dim=0)
    centred = (bank - mean).double()
    variances, directions = torch.linalg.eigh(centred.T @ centred / len(bank))
    kept = variances > 1e-6 * variances[-1]
    return mean, (directions[:, kept] / variances[kept].sqrt()).to(bank.dtype)


def spaces(bank: Tensor, queries: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    """The features (N, D) and (M, D) in each space; neighbours are nearest by Euclidean distance in all of them.

    In all but "raw" each feature has length 1, so that the nearest ones are those with the greatest cosine.
    """
    mean, matrix = whitening(bank)
    return {
        "raw": (bank, queries),
        "normalised": (F.normalize(bank, dim=1), F.normalize(queries, dim=1)),
        "centred": (F.normalize(bank - mean, dim=1), F.normalize(queries - mean, dim=1)),
        "whitened": (F.normalize((bank - mean) @ matrix, dim=1), F.normalize((queries - mean) @ matrix, dim=1)),
    }


def nearest_label(bank: Tensor, labels: Tensor, queries: Tensor, k: int) -> Tensor:
    """The most frequent label among the k nearest of bank (N, D) to each of queries (M, D), (M,) int64."""
    num_classes = int(labels.max()) + 1
    norms = bank.square().sum(dim=1)
    predictions = []
    for chunk in queries.split(512):
        nearest = (2 * chunk @ bank.T - norms).topk(k, dim=1).indices  # -|q - b|^2 + |q|^2
        predictions.append(F.one_hot(labels[nearest], num_classes).sum(dim=1).argmax(dim=1))
    return torch.cat(predictions)


class KNNSpaces:
    """Reports `knn_spaces/<space>/top1` for the spaces raw, normalised, centred and whitened; a neighbour, a vote."""

    needs_labels = True

    def __init__(self, k: int):
        """Keeps the number of neighbours.

        Raises:
            ValueError: for less than one.
        """
        if k < 1:
            raise ValueError(f"evaluators.knn_spaces.k={k}: give at least 1, 20 for example")
        self.k = k

    def __call__(self, context: EvalContext) -> dict[str, float]:
        """Accuracy on the test split in each space."""
        train, test = context.train, context.test
        if self.k > len(train.x):
            warn_once(f"knn_spaces: k={self.k} is more than the {len(train.x)} training examples; all of them vote")
        labels, truth = train.y.to(context.device), test.y.to(context.device)
        metrics: dict[str, float] = {}
        for name, (bank, queries) in spaces(train.x.to(context.device), test.x.to(context.device)).items():
            hits = nearest_label(bank, labels, queries, min(self.k, len(bank))) == truth
            metrics[f"knn_spaces/{name}/top1"] = Proportion.of(hits.cpu())
        return metrics
