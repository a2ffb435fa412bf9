"""MSN: a view with tokens dropped is to fall on the same prototypes as another, whole view; no pixel is predicted.

Assran, Caron, Misra, Bojanowski, Bordes, Vincent, Joulin, Rabbat, Ballas, "Masked Siamese Networks for Label-Efficient
Learning", ECCV 2022, https://arxiv.org/abs/2204.07141, Section 3, Eq. 1. Official code:
github.com/facebookresearch/msn.
Letters: B batch, N tokens of a view, K prototypes.
"""

import math
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_zoo.backbones.tokens import eligible, encode, grid, require_tokens
from ssl_zoo.checks import fraction, positive
from ssl_zoo.distributed import all_reduce_mean
from ssl_zoo.functional import ema_copy, ema_update_cosine, embed_views, global_views, view_pairs
from ssl_zoo.method import Batch, Method
from ssl_zoo.nn.heads import Prototypes, mlp
from ssl_zoo.nn.masks import RandomMask, unmasked


class MSN(Method):
    """Anchors: global views with tokens dropped (the paper's random masking) and whole local ones (focal masking).
    Targets: whole global views through the EMA network.

    Differs from the official code: every global view is a target for all other views, where there one of two is a
    target only; the projector has ReLU for GELU and no BatchNorm at its input; Sinkhorn on the targets, which the
    released configuration turns on, is left out (Appendix C.1 compares both).
    """

    min_views: ClassVar[int] = 2

    def __init__(
        self,
        backbone: nn.Module,
        hidden_dim: int,
        out_dim: int,
        num_prototypes: int,
        temperature: float,
        sharpening: float,
        entropy_weight: float,
        mask_ratio: float,
        ema_decay: float,
    ):
        """sharpening: T of the official code, whose targets are raised to the power 1/T. entropy_weight: lambda."""
        super().__init__(backbone)
        require_tokens(backbone)
        positive(hidden_dim=hidden_dim, out_dim=out_dim, num_prototypes=num_prototypes, temperature=temperature)
        positive(sharpening=sharpening, entropy_weight=entropy_weight)
        fraction(ema_decay=ema_decay)
        self.mask = RandomMask(mask_ratio)
        self.projector = mlp(self.backbone.num_features, hidden_dim, hidden_dim, out_dim)
        self.prototypes = Prototypes(out_dim, num_prototypes)
        self.target = ema_copy(nn.Sequential(backbone, self.projector))
        self.temperature = temperature
        self.sharpening = sharpening
        self.entropy_weight = entropy_weight
        self.ema_decay = ema_decay

    def drop(self, view: Tensor) -> Tensor:
        """The pooled vector (B, D) of what is left of a view once `mask_ratio` of its tokens are dropped."""
        real = eligible(self.backbone, view)  # (B, N)
        mask = self.mask(real, grid(self.backbone, view))
        return encode(self.backbone, view, keep=unmasked(mask, real, self.mask.mask_ratio)).pooled

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Eq. 1: cross-entropy, mean over the batch and over all pairs of a global view and another; to it comes, times
        `entropy_weight`, what the entropy of the mean prediction for all anchors (global batch) lacks to log K."""
        whole = global_views(batch.views)
        h = [*(self.drop(view) for view in whole), *embed_views(self.backbone, batch.views[len(whole) :])]
        logits = self.prototypes(self.projector(torch.cat(h))) / self.temperature
        with torch.no_grad():
            scores = self.prototypes(torch.cat(embed_views(self.target, whole)))
            t = (scores / (self.temperature * self.sharpening)).softmax(dim=1).chunk(len(whole))
        s = logits.chunk(len(h))
        match = torch.stack([F.cross_entropy(s[j], t[i]) for i, j in view_pairs(batch.views)]).mean()
        mean = all_reduce_mean(logits.softmax(dim=1).mean(dim=0))  # (K,)
        missing = math.log(len(mean)) - torch.special.entr(mean).sum()
        return {"loss": match + self.entropy_weight * missing, "match": match, "missing_entropy": missing}

    def after_step(self, progress: float) -> None:
        online = nn.Sequential(self.backbone, self.projector)
        ema_update_cosine(self.target, online, self.ema_decay, progress)
