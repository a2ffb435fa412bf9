"""SigLIP: classify each pair of an image and a caption of the batch as matching or not, independently of others.

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
    """-log sigmoid(+-(scale * cosine + bias)), + for matching pairs, summed over texts, mean over images (Section 3.2).

    The paper exchanges texts in a ring to save memory (Section 3.3); here they are gathered, with the same result.

    Args:
        images: (B, D) unit vectors.
        texts: (B, D) unit vectors; row i belongs to image i.
        scale: factor on the cosine similarities.
        bias: added to the scaled similarities.

    Returns:
        Scalar float32: the sum is over the W * B texts of all processes, the mean over the B images of this one.
    """
    with torch.autocast(device_type=images.device.type, enabled=False):
        logits = scale * similarities(images, all_gather(texts.float())) + bias  # (B, WB)
        own = own_rows(images)
        signs = 2 * F.one_hot(own, logits.shape[1]) - 1  # 1 for matching pairs, -1 for all others
        return -F.logsigmoid(signs * logits).sum(dim=1).mean()


class SigLIP(Method):
    """Two encoders with a linear projection each to a shared space; the image encoder is evaluated and exported.

    The last view of a batch is the text, (B, L) token ids; each view before it is an image paired with this text.
    Differs from the official code: each encoder has its own pooling (official: attention pooling for images).

    Args:
        scale: initial factor on the cosine similarities; learned.
        bias: initial bias; learned.

    Raises:
        ValueError: for a scale or width that is not positive, or a bias that is not finite.
    """

    min_views: ClassVar[int] = 2

    text_backbone: Any
    """Maps token ids (B, L) to features (B, D'), and has D' as `num_features`."""

    def __init__(self, backbone: nn.Module, text_backbone: nn.Module, out_dim: int, scale: float, bias: float):
        super().__init__(backbone)
        positive(out_dim=out_dim, scale=scale)
        if not math.isfinite(bias):
            raise ValueError(f"method.bias={bias} must be a finite number, -10 for example")
        self.text_backbone = text_backbone
        self.projector = nn.Linear(self.backbone.num_features, out_dim)
        self.text_projector = nn.Linear(self.text_backbone.num_features, out_dim)
        self.log_scale = nn.Parameter(torch.tensor(math.log(scale)))  # t' in the paper
        self.bias = nn.Parameter(torch.tensor(float(bias)))

    def embed_image(self, images: Tensor) -> Tensor:
        """Maps images (B, C, H, W) to unit vectors (B, D) float32."""
        return self._project(self.backbone(images))

    def embed_text(self, ids: Tensor) -> Tensor:
        """Maps token ids (B, L) int64 to unit vectors (B, D) float32."""
        return F.normalize(self.text_projector(self.text_backbone(ids)).float(), dim=1)

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """`sigmoid_loss`, mean over the image views."""
        *views, ids = batch.views
        texts, scale = self.embed_text(ids), self.log_scale.exp()
        losses = [sigmoid_loss(self._project(h), texts, scale, self.bias) for h in embed_views(self.backbone, views)]
        return {"loss": torch.stack(losses).mean(), "scale": scale.detach(), "bias": self.bias.detach()}

    def _project(self, features: Tensor) -> Tensor:
        return F.normalize(self.projector(features).float(), dim=1)
