"""Weighted nearest neighbours: the label that the most similar training examples vote for.

Wu, Xiong, Yu, Lin, "Unsupervised Feature Learning via Non-Parametric Instance Discrimination", CVPR 2018,
https://arxiv.org/abs/1805.01978, Section 3.4; with k = 20 as in Caron et al., "DINO", ICCV 2021,
https://arxiv.org/abs/2104.14294. Letters: N training examples, M queries, D width, C classes.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_zoo.evaluators.base import EvalContext, warn_once
from ssl_zoo.evaluators.proportion import Proportion


def votes(
    bank: Tensor, labels: Tensor, queries: Tensor, ks: list[int], temperature: float | None, num_classes: int
) -> list[Tensor]:
    """Votes for each class, once per number of neighbours. Exact; computed in chunks of the queries.

    Args:
        bank: (N, D) training features.
        labels: (N,) int64, on the same device as the features.
        queries: (M, D) test features.
        ks: numbers of neighbours, each at most N.
        temperature: each neighbour's vote is exp(cosine / temperature); None: 1.
        num_classes: C.

    Returns:
        For each k, (M, C).
    """
    bank = F.normalize(bank, dim=1)
    chunks = []
    for chunk in F.normalize(queries, dim=1).split(512):
        cosine, nearest = (chunk @ bank.T).topk(max(ks), dim=1)  # (512, K), the nearest first
        # The common factor exp(-1 / temperature) keeps the weights below 1.
        weights = torch.ones_like(cosine) if temperature is None else ((cosine - 1) / temperature).exp()
        scores = weights.new_zeros(len(ks), len(chunk), num_classes)
        for score, k in zip(scores, ks, strict=True):
            score.scatter_add_(1, labels[nearest[:, :k]], weights[:, :k])
        chunks.append(scores)
    return list(torch.cat(chunks, dim=1))


class KNN:
    """Accuracy on the test split of the labels that the nearest training examples vote for.

    Reports `<name>/top1` for the first k and `<name><k>/top1` for each further one. Where k exceeds the number of
    training examples, all of them vote, and a message says so.
    """

    needs_labels = True

    def __init__(self, k: list[int], temperature: float | None, center: bool, name: str = "knn"):
        """Keeps the settings.

        Args:
            k: numbers of neighbours.
            temperature: of the weights of their votes; None gives each neighbour one vote.
            center: subtract the mean training feature first, for features that share a direction, as those of text do.
            name: key of this evaluator among `evaluators`, with which its metrics begin.

        Raises:
            ValueError: for a k below 1 or named twice, or a temperature that is not positive.
        """
        key = f"evaluators.{name}"
        if not k or min(k) < 1 or len(set(k)) < len(k):
            raise ValueError(f"{key}.k={k} must be one or more different numbers of neighbours, each at least 1")
        if temperature is not None and not 0 < temperature < float("inf"):
            raise ValueError(f"{key}.temperature={temperature} must be positive, 0.07 for example, or null")
        self.name = name
        self.k = k
        self.temperature = temperature
        self.center = center

    def __call__(self, context: EvalContext) -> dict[str, float]:
        """Accuracy for each k."""
        train, test = context.train, context.test
        for k in self.k:
            if k > len(train.x):
                warn_once(f"{self.name}: k={k} is more than the {len(train.x)} training examples; all of them vote")
        accuracies = self.accuracies(
            train.x.to(context.device), train.y.to(context.device), test.x.to(context.device), test.y.to(context.device)
        )
        names = [self.name, *(f"{self.name}{k}" for k in self.k[1:])]
        return {f"{name}/top1": accuracy for name, accuracy in zip(names, accuracies, strict=True)}

    def accuracies(self, bank: Tensor, labels: Tensor, queries: Tensor, truth: Tensor) -> list[Proportion]:
        """Accuracy for each k.

        Args:
            bank: (N, D) training features.
            labels: (N,) int64.
            queries: (M, D) test features.
            truth: (M,) int64, labels of the queries.
        """
        if self.center:
            mean = bank.mean(dim=0)
            bank, queries = bank - mean, queries - mean
        ks = [min(k, len(bank)) for k in self.k]
        num_classes = int(max(labels.max(), truth.max())) + 1
        scores = votes(bank, labels, queries, ks, self.temperature, num_classes)
        return [Proportion.of((score.argmax(dim=1) == truth).cpu()) for score in scores]
