"""Scores that need no labels, from one pass over several views of some training examples.

Each has a file of its own with its paper: `alpha_req`, `lidar`, `clid`, `hypersphere`; RankMe is reported by `spread`.
The views are the same for all methods, whatever they train on, so that runs can be compared. Letters: n examples, q
views, D width.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ssl_zoo.evaluators.alpha_req import alpha_req
from ssl_zoo.evaluators.base import EvalContext, frozen, random_rows
from ssl_zoo.evaluators.clid import intrinsic_dimension, learnability
from ssl_zoo.evaluators.hypersphere import alignment, uniformity
from ssl_zoo.evaluators.lidar import lidar
from ssl_zoo.evaluators.pixels import to_pixels
from ssl_zoo.views import Views
from ssl_zoo.views.colour import ColorJitter, Normalize
from ssl_zoo.views.geometry import RandomResizedCrop
from ssl_zoo.views.text import Windows


class LabelFree:
    """Reports `alpha_req`, `lidar`, `alignment`, `uniformity`, `clid/learnability` and `clid/dimension`.

    None of them is an accuracy, and none tells reliably which of two methods is better: `benchmarks/label_free.py`
    measures how far each can be trusted.
    """

    needs_labels = False

    def __init__(self, examples: int, views: int, window: int, clusters: int, k: int):
        """Keeps the settings.

        Args:
            examples: n, number of training examples at most, a fixed random sample.
            views: q, of each.
            window: tokens of a view of a text; shorter texts are the same in all views.
            clusters: of the cluster learnability.
            k: its neighbours.

        Raises:
            ValueError: for numbers that are too small.
        """
        least = {"examples": (examples, 4), "views": (views, 2), "window": (window, 1), "clusters": (clusters, 2)}
        for name, (value, minimum) in {**least, "k": (k, 1)}.items():
            if value < minimum:
                raise ValueError(f"evaluators.label_free.{name}={value}: give at least {minimum}")
        if max(clusters, 2 * k) > examples:
            raise ValueError(
                f"evaluators.label_free.examples={examples}: give at least clusters={clusters}, and twice k={k}"
            )
        self.examples = examples
        self.num_views = views
        self.window = window
        self.clusters = clusters
        self.k = k

    def __call__(self, context: EvalContext) -> dict[str, float]:
        """All scores."""
        z = self._views(context)
        x = context.train.x[random_rows(len(context.train.x), self.examples)]
        return {
            "alpha_req": alpha_req(context.train.x.to(context.device)),
            "lidar": lidar(z),
            "alignment": alignment(z),
            "uniformity": uniformity(z[:, 0]),
            "clid/learnability": learnability(x, min(self.clusters, len(x)), min(self.k, len(x) // 2)),
            "clid/dimension": intrinsic_dimension(x),
        }

    def _views(self, context: EvalContext) -> Tensor:
        """Features (n, q, D) of the views of the sample, on the device.

        Raises:
            FloatingPointError: when the encoder returns NaN or Inf.
        """
        encoder, facts = context.method.encoder, context.data.facts
        views = surrogate_views(facts, self.num_views, self.window)
        parts = []
        with frozen(encoder), context.precision():
            for batch in context.sample("train", self.examples):
                plain = batch.views[0].to(context.device)
                examples = to_pixels(facts, plain) if facts["modality"] == "image" else plain
                made = views(examples, batch.indices.to(context.device), 0, seed=0)
                parts.append(torch.stack([encoder(view).float() for view in made], dim=1))
        z = torch.cat(parts)
        if not z.isfinite().all():
            raise FloatingPointError("label_free: the encoder's features of the views hold NaN or Inf")
        return z


def surrogate_views(facts: Mapping[str, Any], copies: int, window: int) -> Views:
    """Views that alter an image as most methods do, but without flips, which change digits; or windows of a text."""
    if facts["modality"] == "text":
        return Views([[Windows(window, facts["pad_id"])]], [copies])
    crop = RandomResizedCrop(facts["image_size"], scale=(0.2, 1.0))
    colour = ColorJitter(brightness=0.4, contrast=0.4, saturation=0.2, hue=0.1, p=0.8)
    return Views([[crop, colour, Normalize(facts["mean"], facts["std"])]], [copies])
