"""CLIP: identify the caption of each image, and the image of each caption, among those of the batch.

Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", ICML 2021,
https://arxiv.org/abs/2103.00020, Section 2.3 and Figure 3. Official code (inference only): github.com/openai/CLIP.
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


def clip_loss(images: Tensor, texts: Tensor, scale: Tensor) -> Tensor:
    """Mean of two cross-entropies: identify the text of each image, and the image of each text (Figure 3).

    Args:
        images: (B, D) unit vectors.
        texts: (B, D) unit vectors; row i belongs to image i.
        scale: factor on the cosine similarities.

    Returns:
        Scalar float32, mean over the B pairs of this process; the candidates come from all processes.
    """
    with torch.autocast(device_type=images.device.type, enabled=False):
        images, texts = images.float(), texts.float()
        to_text = scale * similarities(images, all_gather(texts))  # (B, WB)
        to_image = scale * similarities(texts, all_gather(images))
        own = own_rows(images)
        return (F.cross_entropy(to_text, own) + F.cross_entropy(to_image, own)) / 2


class CLIP(Method):
    """Two encoders with a linear projection each to a shared space; the image encoder is evaluated and exported.

    The last view of a batch is the text, (B, L) token ids; each view before it is an image paired with this text.
    Differs from the paper: any text encoder may serve, with its own pooling (paper: causal, the last token).

    Args:
        temperature: initial temperature; cosine similarities are multiplied by its inverse, which is learned.
        max_scale: upper bound on the inverse temperature.

    Raises:
        ValueError: for numbers that are not positive, or an initial scale above `max_scale`.
    """

    min_views: ClassVar[int] = 2

    text_backbone: Any
    """Maps token ids (B, L) to features (B, D'), and has D' as `num_features`."""

    def __init__(
        self, backbone: nn.Module, text_backbone: nn.Module, out_dim: int, temperature: float, max_scale: float
    ):
        super().__init__(backbone)
        positive(out_dim=out_dim, temperature=temperature, max_scale=max_scale)
        if 1 / temperature > max_scale:
            raise ValueError(
                f"method.max_scale={max_scale} must be at least 1 / method.temperature={1 / temperature:g}"
            )
        self.text_backbone = text_backbone
        self.projector = nn.Linear(self.backbone.num_features, out_dim, bias=False)
        self.text_projector = nn.Linear(self.text_backbone.num_features, out_dim, bias=False)
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / temperature)))
        self.max_log_scale = math.log(max_scale)

    def embed_image(self, images: Tensor) -> Tensor:
        """Maps images (B, C, H, W) to unit vectors (B, D) float32."""
        return self._project(self.backbone(images))

    def embed_text(self, ids: Tensor) -> Tensor:
        """Maps token ids (B, L) int64 to unit vectors (B, D) float32."""
        return F.normalize(self.text_projector(self.text_backbone(ids)).float(), dim=1)

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """`clip_loss`, mean over the image views."""
        *views, ids = batch.views
        texts, scale = self.embed_text(ids), self.log_scale.exp()
        losses = [clip_loss(self._project(h), texts, scale) for h in embed_views(self.backbone, views)]
        return {"loss": torch.stack(losses).mean(), "scale": scale.detach()}

    def after_step(self, progress: float) -> None:
        """Limits the learned scale to `max_scale` (Section 2.5)."""
        # The parameter itself is clamped: with a clamp in `forward` it would get no gradient above the limit.
        self.log_scale.clamp_(max=self.max_log_scale)

    def _project(self, features: Tensor) -> Tensor:
        return F.normalize(self.projector(features).float(), dim=1)
