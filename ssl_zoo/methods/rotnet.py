"""RotNet: rotate each image by 0, 90, 180 and 270 degrees and classify the rotation.

Gidaris, Singh, Komodakis, "Unsupervised Representation Learning by Predicting Image Rotations", ICLR 2018,
https://arxiv.org/abs/1803.07728, Section 2.1 and Eqs. 2 and 3. Official code:
github.com/gidariss/FeatureLearningRotNet.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_zoo.functional import embed_views
from ssl_zoo.method import Batch, Method


class RotNet(Method):
    """A linear classifier of the four rotations on the features.

    All four copies of an image are in one batch, which the paper found much better than one (Section 3.1), so the
    network processes four times the batch. Differs from the paper, which evaluates features of an intermediate layer of
    a larger network: here the output of the backbone is evaluated.
    """

    def __init__(self, backbone: nn.Module):
        super().__init__(backbone)
        self.classifier = nn.Linear(self.backbone.num_features, 4)

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Cross-entropy and accuracy, mean over the four rotations of all views."""
        if batch.views[0].ndim != 4:
            raise ValueError(f"method=rotnet turns images (B, C, H, W), not views of {tuple(batch.views[0].shape)}")
        rotated = [torch.rot90(view, k, (2, 3)) for view in batch.views for k in range(4)]
        logits = torch.stack([self.classifier(h).float() for h in embed_views(self.backbone, rotated)])  # (4V, B, 4)
        targets = torch.arange(4, device=logits.device).repeat(len(batch.views)).repeat_interleave(logits.shape[1])
        logits = logits.flatten(0, 1)
        return {"loss": F.cross_entropy(logits, targets), "accuracy": (logits.argmax(dim=1) == targets).float().mean()}
