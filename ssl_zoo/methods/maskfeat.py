"""MaskFeat: mask blocks of an image and predict the histograms of oriented gradients (HOG) of the masked patches.

Wei, Fan, Xie, Wu, Yuille, Feichtenhofer, "Masked Feature Prediction for Self-Supervised Visual Pre-Training", CVPR
2022, https://arxiv.org/abs/2112.09133, Section 2; HOG: Dalal & Triggs, CVPR 2005. Official code:
github.com/facebookresearch/SlowFast/tree/main/projects/maskfeat.
Letters: B images, N patches, C channels, P patch size, S cell size, D width.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_zoo.backbones.tokens import eligible, embed, encode, grid, patch_convolution
from ssl_zoo.checks import positive
from ssl_zoo.functional import global_views, mean_over
from ssl_zoo.method import Batch, Method
from ssl_zoo.nn.masks import BlockMask, mask_token


def hog(images: Tensor, cell: tuple[int, int], num_bins: int) -> Tensor:
    """Histograms of unsigned gradient directions per cell: (B, C, H, W) to (B, C, num_bins, H / S, W / S) float32.

    A gradient is the difference of the two neighbours, 0 across the border; it adds its norm to the bin of its angle.
    The histogram of a cell and channel has norm 1, or is 0 if the cell is constant. The official code uses Sobel
    filters and a Gaussian window over 16 pixels.
    """
    x = images.float()
    dy = F.pad(x[..., 2:, :] - x[..., :-2, :], (0, 0, 1, 1))
    dx = F.pad(x[..., 2:] - x[..., :-2], (1, 1))
    angle = torch.atan2(dy, dx) / math.pi * num_bins  # a full turn is 2 * num_bins; opposite directions share a bin
    bins = angle.floor().long() % num_bins
    b, c, h, w = x.shape
    lengths = x.new_zeros(b, c, num_bins, h, w).scatter(2, bins.unsqueeze(2), torch.hypot(dx, dy).unsqueeze(2))
    cells = lengths.view(b, c, num_bins, h // cell[0], cell[0], w // cell[1], cell[1]).sum(dim=(4, 6))
    return F.normalize(cells, dim=2)


class MaskFeat(Method):
    """Masks blocks as in BEiT by a mask token; one linear layer predicts the HOG of a patch.

    Args:
        cell_size: side of a cell in pixels; if it does not divide the patch size, their greatest common divisor.
    """

    def __init__(self, backbone: nn.Module, mask_ratio: float, num_bins: int, cell_size: int):
        super().__init__(backbone)
        projection = patch_convolution(backbone)
        positive(num_bins=num_bins, cell_size=cell_size)
        self.mask = BlockMask(mask_ratio)
        self.num_bins = num_bins
        p, q = projection.kernel_size
        self.cell = math.gcd(p, cell_size), math.gcd(q, cell_size)
        self.cells = p // self.cell[0], q // self.cell[1]  # per patch
        self.mask_token = mask_token(projection.out_channels)
        out_dim = projection.in_channels * num_bins * self.cells[0] * self.cells[1]
        self.head = nn.Linear(self.backbone.num_features, out_dim)

    def targets(self, view: Tensor) -> Tensor:
        """HOG of each patch: (B, C, H, W) to (B, N, C * bins * cells per patch) float32."""
        x = hog(view, self.cell, self.num_bins).flatten(1, 2)
        return F.unfold(x, kernel_size=self.cells, stride=self.cells).transpose(1, 2)

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Squared error, mean over the HOG values of the masked patches of all global views."""
        views = global_views(batch.views)
        # Random numbers are generated per view, so that they are distributed over processes as the examples are.
        masks = [self.mask(eligible(self.backbone, view), grid(self.backbone, view)) for view in views]
        view, mask = torch.cat(views), torch.cat(masks)
        x = torch.where(mask.unsqueeze(-1), self.mask_token, embed(self.backbone, view))
        predictions = self.head(encode(self.backbone, view, embeddings=x).tokens).float()
        errors = (predictions - self.targets(view)).square().mean(dim=-1)  # (B, N)
        return {"loss": mean_over(errors, mask)}
