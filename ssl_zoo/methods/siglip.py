"""SigLIP: of every image and every caption of the batch, tell whether they belong together, each pair by itself.

Zhai, Mustafa, Kolesnikov, Beyer, "Sigmoid Loss for Language Image Pre-Training", ICCV 2023,
https://arxiv.org/abs/2303.15343, Section 3.2 and Algorithm 1. Official code: github.com/google-research/big_vision.
Letters: B pairs on this process, W processes, L tokens, D width of the shared space.
"""

import math
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_zoo.checks import positive
from ssl_zoo.distributed import all_gather, own_rows
from ssl_zoo.functional import embed_views, similarities
from ssl_zoo.method import Batch, Method


def sigmoid_loss(images: Tensor, texts: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """-log sigmoid(+-(scale * cosine + bias)), + for pairs, summed over all texts, mean over the images (Section 3.2).

    images, texts: (B, D) of length 1, row i of both being a pair. The B images of this process meet the texts of all,
    so the sum is over W * B texts; computed in float32. The paper passes texts around in a ring to save memory
    (Section 3.3); here they are gathered, which gives the same number.
    """
    with torch.autocast(device_type=images.device.type, enabled=False):
        logits = scale * similarities(images, all_gather(texts.float())) + bias  # (B, WB)
        own = own_rows(images)
        signs = 2 * F.one_hot(own, logits.shape[1]) - 1  # 1 for pairs, -1 for all others
        return -F.logsigmoid(signs * logits).sum(dim=1).mean()


class SigLIP(Method):
    """Two encoders and a linear map from each to a shared space; the image encoder is evaluated, exported and kept.

    The batch's last view is the text, (B, L) token ids; all views before it are images, each of them paired with it.
    Differs from the official code: each encoder pools as it does (there: attention pooling for images).
    """

    min_views: ClassVar[int] = 2

    text_backbone: Any
    """What turns token ids into features, as `backbone` does images."""

    def __init__(self, backbone: nn.Module, text_backbone: nn.Module, out_dim: int, scale: float, bias: float):
        """scale, bias: of the cosines, at the start; both are learned. Raises ValueError for a scale or width of 0."""
        super().__init__(backbone)
        positive(out_dim=out_dim, scale=scale)
        if not math.isfinite(bias):
            raise ValueError(f"method.bias={bias} must be a finite number, -10 for example")
        self.text_backbone = text_backbone
        self.projector = nn.Linear(self.backbone.num_features, out_dim)
        self.text_projector = nn.Linear(self.text_backbone.num_features, out_dim)
        self.log_scale = nn.Parameter(torch.tensor(math.log(scale)))  # t' of the paper
        self.bias = nn.Parameter(torch.tensor(float(bias)))

    def embed_image(self, images: Tensor) -> Tensor:
        """(B, C, H, W) float -> (B, D) float32 of length 1."""
        return self._project(self.backbone(images))

    def embed_text(self, ids: Tensor) -> Tensor:
        """(B, L) int64 -> (B, D) float32 of length 1."""
        return F.normalize(self.text_projector(self.text_backbone(ids)).float(), dim=1)

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """With several image views the loss is the mean over them."""
        *views, ids = batch.views
        texts, scale = self.embed_text(ids), self.log_scale.exp()
        losses = [sigmoid_loss(self._project(h), texts, scale, self.bias) for h in embed_views(self.backbone, views)]
        return {"loss": torch.stack(losses).mean(), "scale": scale.detach(), "bias": self.bias.detach()}

    def _project(self, features: Tensor) -> Tensor:
        return F.normalize(self.projector(features).float(), dim=1)
