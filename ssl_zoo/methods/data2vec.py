"""data2vec: from a view with masked tokens, predict an EMA teacher's features of the whole view.

Baevski, Hsu, Xu, Babu, Gu, Auli, "data2vec: A General Framework for Self-supervised Learning in Speech, Vision and
Language", ICML 2022, https://arxiv.org/abs/2202.03555, Section 3. Official code:
github.com/facebookresearch/fairseq/tree/main/examples/data2vec. One class serves images and text.
Letters: B rows, N tokens per row, D width, K layers.
"""

from collections.abc import Callable
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_zoo.backbones.tokens import eligible, embed, encode, grid, require_tokens
from ssl_zoo.checks import fraction, positive
from ssl_zoo.functional import ema_copy, ema_update, global_views, mean_over
from ssl_zoo.method import Batch, Method
from ssl_zoo.nn.masks import mask_token

MaskMaker = Callable[[Tensor, tuple[int, int]], Tensor]


def layer_targets(layers: list[Tensor], num_layers: int) -> Tensor:
    """Mean of the last `num_layers` of layers (B, N, D), each normalised over D without learned scale, in float32."""
    return torch.stack([F.layer_norm(x.float(), x.shape[-1:]) for x in layers[-num_layers:]]).mean(dim=0)


class Data2Vec(Method):
    """The teacher is an EMA of the backbone; a small head predicts its targets from the student's tokens.

    Differs from the paper: the targets are outputs of whole blocks, where the paper uses the feed-forward layer before
    the residual sum (Section 3.3), which not every backbone exposes; and masked text tokens are always replaced by the
    mask embedding, as in the released configuration for text, not 80/10/10 (Section 4.3). The official code sums over
    the D values and divides by sqrt(D), which is sqrt(D) times this loss; for text it does not divide.

    Args:
        mask: mask maker, see `ssl_zoo.nn.masks`.
        num_layers: K; all layers if the backbone has fewer.
        num_head_layers: 1 for a linear head.
        beta: error at which the loss changes from squared to absolute.
        ema_decay: of the teacher at the start of the run; it changes linearly to `final_decay`.
    """

    def __init__(
        self,
        backbone: nn.Module,
        mask: MaskMaker,
        num_layers: int,
        num_head_layers: int,
        beta: float,
        ema_decay: float,
        final_decay: float,
    ):
        super().__init__(backbone)
        require_tokens(backbone)
        positive(num_layers=num_layers, num_head_layers=num_head_layers, beta=beta)
        fraction(ema_decay=ema_decay, final_decay=final_decay)
        self.mask = mask
        self.num_layers = num_layers
        self.beta = beta
        self.ema_decay = ema_decay
        self.final_decay = final_decay
        self.teacher = ema_copy(backbone)
        dim = self.backbone.num_features
        self.mask_token = mask_token(dim)
        widths = [dim, *[2 * dim] * (num_head_layers - 1), dim]
        layers = [layer for width, out in pairwise(widths) for layer in (nn.Linear(width, out), nn.GELU())]
        self.head = nn.Sequential(*layers[:-1])

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Smooth L1 (Section 3.4), mean over the masked tokens of all global views and processes, and over D.

        `target_std` is the standard deviation of the targets over all tokens; near 0 the teacher has collapsed.
        """
        views = global_views(batch.views)
        # Random numbers are generated per view, so that they are distributed over processes as the examples are.
        masks = [self.mask(eligible(self.backbone, view), grid(self.backbone, view)) for view in views]
        view, mask = torch.cat(views), torch.cat(masks)
        with torch.no_grad():
            targets = layer_targets(encode(self.teacher, view).layers, self.num_layers)
        x = torch.where(mask.unsqueeze(-1), self.mask_token, embed(self.backbone, view))
        predictions = self.head(encode(self.backbone, view, embeddings=x).tokens).float()
        errors = F.smooth_l1_loss(predictions, targets, reduction="none", beta=self.beta).mean(dim=-1)  # (B, N)
        return {"loss": mean_over(errors, mask), "target_std": targets.flatten(0, 1).std(dim=0).mean()}

    def after_step(self, progress: float) -> None:
        """Updates the teacher; its decay changes linearly over the whole run (Section 3.3: over a part of it)."""
        ema_update(self.teacher, self.backbone, self.ema_decay + (self.final_decay - self.ema_decay) * progress)
