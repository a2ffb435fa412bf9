"""MSN: a view with tokens dropped should be assigned to the same prototypes as another view; no pixel is predicted.

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
    """Matches the prototype assignments of partial views with an EMA target's assignments of whole global views.

    Anchors are global views with tokens dropped (the paper's random masking) and local views (focal masking). Differs
    from the official code: every global view is a target for all other views, while the official code uses one of two
    as target only; the projector has ReLU instead of GELU and no BatchNorm at its input; Sinkhorn on the targets,
    enabled in the released configuration, is left out (Appendix C.1 compares both).

    Args:
        sharpening: T in the official code; targets are raised to the power 1/T.
        entropy_weight: lambda in the paper.
        ema_decay: of the target; rises to 1 over the run along a half-cosine.
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
        """The pooled vector (B, D) of a view after dropping `mask_ratio` of its tokens."""
        real = eligible(self.backbone, view)  # (B, N)
        mask = self.mask(real, grid(self.backbone, view))
        return encode(self.backbone, view, keep=unmasked(mask, real, self.mask.mask_ratio)).pooled

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Eq. 1: `match` plus `entropy_weight` times `missing_entropy`.

        `match` is the cross-entropy, mean over the batch and all pairs of a global view and another view;
        `missing_entropy` is log K minus the entropy of the mean prediction over all anchors of the global batch.
        """
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
        """Updates the target."""
        online = nn.Sequential(self.backbone, self.projector)
        ema_update_cosine(self.target, online, self.ema_decay, progress)
