"""Supervised baseline: cross-entropy on the labels, for comparison with self-supervision.

Label smoothing: Szegedy et al., "Rethinking the Inception Architecture for Computer Vision", CVPR 2016, Section 7,
https://arxiv.org/abs/1512.00567.
"""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_zoo.method import Batch, Method


class Supervised(Method):
    """A linear classifier on the backbone, trained end to end; every view of an example has its label."""

    uses_labels: ClassVar[bool] = True

    def __init__(self, backbone: nn.Module, num_classes: int, label_smoothing: float):
        super().__init__(backbone)
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"method.label_smoothing={label_smoothing} must lie in [0, 1)")
        if num_classes < 2:
            raise ValueError(
                f"method=supervised needs at least 2 classes, the data has {num_classes}: choose other data"
            )
        self.head = nn.Linear(self.backbone.num_features, num_classes)
        self.label_smoothing = label_smoothing

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Cross-entropy and accuracy, mean over the batch and all views."""
        logits = torch.cat([self.classify(view) for view in batch.views])  # (VB, classes)
        labels = batch.labels.repeat(len(batch.views))
        loss = F.cross_entropy(logits, labels, label_smoothing=self.label_smoothing)
        return {"loss": loss, "accuracy": (logits.argmax(dim=1) == labels).float().mean()}

    def classify(self, view: Tensor) -> Tensor:
        """Maps a view (B, ...) to logits (B, num_classes) float32."""
        logits: Tensor = self.head(self.backbone(view))
        return logits.float()
