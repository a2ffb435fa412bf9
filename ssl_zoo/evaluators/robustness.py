"""How much accuracy the linear probe keeps on corrupted test images, which neither it nor the encoder was trained on.

See `corruptions` for the paper. It reports error relative to AlexNet's; here it is accuracy, and beside it that on the
same images as they are.
"""

import statistics

import torch
from torch import Tensor

from ssl_zoo.evaluators.base import EvalContext, frozen, warn_once
from ssl_zoo.evaluators.corruptions import CORRUPTIONS, corrupt
from ssl_zoo.evaluators.linear import Linear, StandardizedProbe
from ssl_zoo.evaluators.pixels import from_pixels, to_pixels
from ssl_zoo.evaluators.proportion import Proportion


class Robustness:
    """Reports `robustness/<corruption>/top1`, the mean over severities, and `robustness/mean/top1`, that of all.

    `robustness/clean/top1` is the accuracy on the same test images as they are. At the end of a run only; other data
    than images are skipped, with a message.
    """

    needs_labels = True

    def __init__(self, corruptions: list[str] | None, severities: list[int], examples: int, linear: Linear):
        """Keeps the settings.

        Args:
            corruptions: some of `CORRUPTIONS`; None: all.
            severities: some of 1 to 5.
            examples: number of test images at most, a fixed random sample.
            linear: the probe.

        Raises:
            ValueError: for an unknown corruption or severity, or no examples.
        """
        key = "evaluators.robustness"
        if unknown := [name for name in corruptions or () if name not in CORRUPTIONS]:
            raise ValueError(f"{key}.corruptions: {unknown[0]} is unknown. Give some of {', '.join(CORRUPTIONS)}")
        if corruptions is not None and len(set(corruptions)) < max(len(corruptions), 1):
            raise ValueError(f"{key}.corruptions={corruptions}: give one or more different ones, or null for all")
        if not severities or not set(severities) <= set(range(1, 6)) or len(set(severities)) < len(severities):
            raise ValueError(f"{key}.severities={severities}: give one or more different ones of 1 to 5")
        if examples < 1:
            raise ValueError(f"{key}.examples={examples}: give at least 1")
        self.corruptions = list(CORRUPTIONS) if corruptions is None else corruptions
        self.severities = severities
        self.examples = examples
        self.linear = linear

    def __call__(self, context: EvalContext) -> dict[str, float]:
        """Accuracies of the probe that is fitted on the training features as they are."""
        if context.phase != "final":
            return {}
        facts = context.data.facts
        if facts["modality"] != "image":
            warn_once("robustness skipped: corruptions are of images")
            return {}
        probe = self.linear.standardized(context.train.x.to(context.device), context.train.y.to(context.device))
        batches = [([v.cpu() for v in batch.views], batch.labels) for batch in context.sample("test", self.examples)]
        truth = torch.cat([labels.cpu() for _, labels in batches])

        def accuracy(name: str | None, severity: int) -> float:
            random = torch.Generator().manual_seed(severity)
            predictions = []
            with frozen(context.method.encoder), context.precision():
                for views, _ in batches:
                    features = []
                    for view in views:
                        x = view.to(context.device)
                        if name is not None:
                            x = from_pixels(facts, corrupt(to_pixels(facts, x), name, severity, random))
                        features.append(context.method.encoder(x).float())
                    predictions.append(predict(probe, torch.stack(features).mean(dim=0)).cpu())
            return (torch.cat(predictions) == truth).double().mean().item()

        count = len(truth)
        metrics: dict[str, float] = {"robustness/clean/top1": Proportion(accuracy(None, 0), count)}
        means = []
        for name in self.corruptions:
            means.append(statistics.fmean(accuracy(name, severity) for severity in self.severities))
            metrics[f"robustness/{name}/top1"] = Proportion(means[-1], count)
        return metrics | {"robustness/mean/top1": Proportion(statistics.fmean(means), count)}


def predict(probe: StandardizedProbe, x: Tensor) -> Tensor:
    """The labels that a probe gives to features (N, D), (N,) int64."""
    return probe.probe.classes[probe.logits(x).argmax(dim=1)]
