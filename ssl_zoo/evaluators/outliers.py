"""Whether examples of other classes, or of other data, are recognised as such: out-of-distribution detection.

Three scores, each higher for what is known: the greatest probability of the linear probe (Hendrycks, Gimpel, "A
Baseline for Detecting Misclassified and Out-of-Distribution Examples in Neural Networks", ICLR 2017,
https://arxiv.org/abs/1610.02136, Section 3); its negative energy, the log of the summed exponentials of its logits
(Liu, Wang, Owens, Li, "Energy-based Out-of-distribution Detection", NeurIPS 2020, https://arxiv.org/abs/2010.03759,
Section 3); and the negative distance to the k-th nearest training feature, all of length 1 (Sun, Ming, Zhu, Li,
"Out-of-Distribution Detection with Deep Nearest Neighbors", ICML 2022, https://arxiv.org/abs/2204.06507, Section 3).
Letters: N training examples, M queries, D width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_zoo.evaluators.base import EvalContext, warn_once
from ssl_zoo.evaluators.image_sets import ImageSets
from ssl_zoo.evaluators.linear import Linear, StandardizedProbe


def auroc(inside: Tensor, outside: Tensor) -> float:
    """Probability that a score of `inside` (n,) exceeds one of `outside` (m,); an equal one counts half."""
    from sklearn.metrics import roc_auc_score  # slow to import

    labels = torch.cat([torch.ones(len(inside)), torch.zeros(len(outside))])
    return float(roc_auc_score(labels.numpy(), torch.cat([inside, outside]).double().cpu().numpy()))


def familiarity(probe: StandardizedProbe, bank: Tensor, queries: Tensor, k: int) -> dict[str, Tensor]:
    """The three scores of queries (M, D), (M,) each, with training features bank (N, D) and k <= N."""
    logits = probe.logits(queries)
    bank = F.normalize(bank, dim=1)
    nearest = [(chunk @ bank.T).topk(k, dim=1).values[:, -1] for chunk in F.normalize(queries, dim=1).split(512)]
    return {
        "softmax": logits.softmax(dim=1).amax(dim=1),
        "energy": logits.logsumexp(dim=1),
        "knn": torch.cat(nearest),  # a cosine: on the unit sphere it orders as the negative distance does
    }


class Outliers:
    """Reports `outliers/<source>/auroc_<score>` for the scores softmax, energy and knn.

    The source `held_out_classes` are the test examples of the last classes, which neither probe nor neighbours know;
    the encoder has seen their images if it was trained on this data. Each further source is another set of images. At
    the end of a run only.
    """

    needs_labels = True

    def __init__(
        self,
        held_out: float,
        k: int,
        known: dict[str, str],
        sets: list[str] | None,
        root: str | None,
        examples: int | None,
        linear: Linear,
    ):
        """Keeps the settings.

        Args:
            held_out: share of the classes that are left out, at least one; 0: none.
            k: which nearest neighbour counts.
            known: see `ImageSets`, as are the next three.
            sets: other sets of images; []: none; None: all that are found.
            root: the folder that they lie in.
            examples: images per split of them at most.
            linear: the probe.

        Raises:
            ValueError: for settings outside their range, or a set that is not there.
        """
        key = "evaluators.outliers"
        if not 0 <= held_out < 1:
            raise ValueError(f"{key}.held_out={held_out} must lie in [0, 1), 0.2 for example")
        if k < 1:
            raise ValueError(f"{key}.k={k}: give at least 1, 50 for example")
        if not held_out and sets == []:
            raise ValueError(f"{key}.held_out=0, sets=[]: give a share of classes to leave out, or other sets")
        self.held_out = held_out
        self.k = k
        self.sets = None if sets == [] else ImageSets(known, sets, root, examples, key)
        self.linear = linear

    def __call__(self, context: EvalContext) -> dict[str, float]:
        """The area under the curve of each source and score."""
        if context.phase != "final":
            return {}
        (x, y, _), (queries, truth, _) = context.train, context.test
        metrics: dict[str, float] = {}
        classes = y.unique()
        count = max(1, round(self.held_out * len(classes))) if self.held_out else 0
        known = classes[: len(classes) - count]
        if count and len(known) < 2:
            warn_once(f"outliers: {len(classes)} classes are too few to hold some out: two or more must remain")
        elif count:
            is_known = torch.isin(truth, known)
            has_known_class = torch.isin(y, known)
            inside, outside = self._scores(
                context, x[has_known_class], y[has_known_class], [queries[is_known], queries[~is_known]]
            )
            metrics |= _areas("held_out_classes", inside, outside)
        if self.sets is not None and context.data.facts["modality"] == "image":
            sets = dict(self.sets.open(context.data.facts))
            others = [context.on(data) for data in sets.values()]
            parts = [other.test.x if other.data.facts["num_test"] else other.train.x for other in others]
            inside, *rest = self._scores(context, x, y, [queries, *parts])
            for name, scores in zip(sets, rest, strict=True):
                metrics |= _areas(name, inside, scores)
        return metrics

    def _scores(self, context: EvalContext, x: Tensor, y: Tensor, parts: list[Tensor]) -> list[dict[str, Tensor]]:
        """The scores of each part by a probe and neighbours of x (N, D) with labels y (N,)."""
        bank = x.to(context.device)
        probe = self.linear.standardized(bank, y.to(context.device))
        return [familiarity(probe, bank, part.to(context.device), min(self.k, len(bank))) for part in parts]


def _areas(source: str, inside: dict[str, Tensor], outside: dict[str, Tensor]) -> dict[str, float]:
    return {f"outliers/{source}/auroc_{name}": auroc(inside[name], outside[name]) for name in inside}
