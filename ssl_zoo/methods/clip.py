"""CLIP: an image and its caption find each other among all images and captions of the batch.

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
    """Mean of two cross-entropies, of picking each image's text and each text's image (Figure 3).

    images, texts: (B, D) of length 1, row i of both being a pair; scale: what multiplies their cosines. The candidates
    come from all processes, the mean is over the B pairs of this one; computed in float32.
    """
    with torch.autocast(device_type=images.device.type, enabled=False):
        images, texts = images.float(), texts.float()
        to_text = scale * similarities(images, all_gather(texts))  # (B, WB)
        to_image = scale * similarities(texts, all_gather(images))
        own = own_rows(images)
        return (F.cross_entropy(to_text, own) + F.cross_entropy(to_image, own)) / 2


class CLIP(Method):
    """Two encoders and a linear map from each to a shared space; the image encoder is evaluated, exported and kept.

    The batch's last view is the text, (B, L) token ids; all views before it are images, each of them paired with it.
    Differs from the paper: the text encoder is whatever `text_backbone` is and pools as it does (there: causal, read at
    the last token).
    """

    min_views: ClassVar[int] = 2

    text_backbone: Any
    """What turns token ids into features, as `backbone` does images."""

    def __init__(
        self, backbone: nn.Module, text_backbone: nn.Module, out_dim: int, temperature: float, max_scale: float
    ):
        """temperature: at the start; cosines are multiplied by its inverse, which is learned and never above max_scale.

        Raises ValueError for numbers that are not positive, or a start beyond the limit.
        """
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
        """(B, C, H, W) float -> (B, D) float32 of length 1."""
        return self._project(self.backbone(images))

    def embed_text(self, ids: Tensor) -> Tensor:
        """(B, L) int64 -> (B, D) float32 of length 1."""
        return F.normalize(self.text_projector(self.text_backbone(ids)).float(), dim=1)

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """With several image views the loss is the mean over them."""
        *views, ids = batch.views
        texts, scale = self.embed_text(ids), self.log_scale.exp()
        losses = [clip_loss(self._project(h), texts, scale) for h in embed_views(self.backbone, views)]
        return {"loss": torch.stack(losses).mean(), "scale": scale.detach()}

    def after_step(self, progress: float) -> None:
        # The parameter itself is clipped (Section 2.5): a clip in `forward` would leave it no gradient to return by.
        self.log_scale.clamp_(max=self.max_log_scale)

    def _project(self, features: Tensor) -> Tensor:
        return F.normalize(self.projector(features).float(), dim=1)
