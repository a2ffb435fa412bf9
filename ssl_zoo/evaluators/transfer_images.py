"""Transfer of one image encoder to other sets: nearest neighbours and a linear probe on each set's own labels.

The protocol of Kornblith, Shlens, Le, "Do Better ImageNet Models Transfer Better?", CVPR 2019,
https://arxiv.org/abs/1805.08974, Section 3: multinomial logistic regression on frozen features, its penalty chosen on a
part of the training split, accuracy on the test split. Images are resized to what the encoder takes.
"""

import statistics

from ssl_zoo.evaluators.base import EvalContext, warn_once
from ssl_zoo.evaluators.image_sets import ImageSets
from ssl_zoo.evaluators.knn import KNN
from ssl_zoo.evaluators.linear import Linear
from ssl_zoo.evaluators.proportion import Proportion, hash_examples


class TransferImages:
    """Reports `transfer/<set>/top1` by the probe, `transfer_knn/<set>/top1`, and `transfer/mean/top1` over the sets.

    Periodic evaluations leave it out, as it takes minutes; other encoders than those of images skip it, with a message.
    """

    needs_labels = False  # of the run's own data

    def __init__(
        self,
        known: dict[str, str],
        sets: list[str] | None,
        root: str | None,
        examples: int | None,
        linear: Linear,
        knn: KNN,
    ):
        """Finds the sets.

        Args:
            known: for each set its folder below the root.
            sets: some of them; None: all that are found.
            root: the folder that they lie in; None: `$SSL_ZOO_DATA`.
            examples: labelled images per split at most, a fixed stratified sample; None: all.
            linear: the probe.
            knn: the nearest neighbours; of several numbers of them the first is reported.

        Raises:
            ValueError: see `ImageSets`.
        """
        self.sets = ImageSets(known, sets, root, examples, "evaluators.transfer_images")
        self.linear = linear
        self.knn = knn

    def __call__(self, context: EvalContext) -> dict[str, float]:
        """Accuracies on each set."""
        if context.phase == "periodic":
            return {}
        if context.data.facts["modality"] != "image":
            warn_once("transfer_images skipped: the encoder is of text; evaluators=[transfer] is for it")
            return {}
        metrics: dict[str, float] = {}
        for name, data in self.sets.open(context.data.facts):
            if not data.facts["has_labels"] or not data.facts["num_test"]:
                warn_once(f"transfer_images: {name} skipped: it has no labels, or no test split")
                continue
            other = context.on(data)
            x, y, queries, truth = (t.to(context.device) for t in (*other.train[:2], *other.test[:2]))
            probe = self.linear.standardized(x, y)
            tested = hash_examples(name, data.content, other.test.y, other.test.indices)
            by_probe = probe.probe.accuracy((queries - probe.mean) * probe.scale, truth)
            by_neighbours = self.knn.accuracies(x, y, queries, truth)[0]
            metrics[f"transfer/{name}/top1"] = Proportion.of(by_probe.right, tested)
            metrics[f"transfer_knn/{name}/top1"] = Proportion.of(by_neighbours.right, tested)
        accuracies = [value for key, value in metrics.items() if key.startswith("transfer/")]
        if len(accuracies) > 1:
            metrics["transfer/mean/top1"] = statistics.fmean(accuracies)
        return metrics
