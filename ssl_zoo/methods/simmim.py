"""SimMIM: replace large squares of an image by a mask token and predict their pixels by one linear layer.

Xie, Zhang, Cao, Lin, Bao, Yao, Dai, Hu, "SimMIM: A Simple Framework for Masked Image Modeling", CVPR 2022,
https://arxiv.org/abs/2111.09886, Section 3. Official code: github.com/microsoft/SimMIM.
Letters: B images, N patches, C channels, P patch size, D width.
"""

import math

import torch
from torch import Tensor, nn

from ssl_zoo.backbones.tokens import embed, encode, grid, patch_convolution, patches
from ssl_zoo.checks import positive
from ssl_zoo.functional import global_views, mean_over
from ssl_zoo.method import Batch, Method
from ssl_zoo.nn.masks import RandomMask, mask_token


class SimMIM(Method):
    """The encoder sees all positions, masked ones as the mask token; the head is linear (Section 3.3).

    Args:
        mask_unit: side of the masked squares in patches; 32 pixels in the paper.
    """

    def __init__(self, backbone: nn.Module, mask_ratio: float, mask_unit: int):
        super().__init__(backbone)
        projection = patch_convolution(backbone)
        positive(mask_unit=mask_unit)
        self.mask = RandomMask(mask_ratio)
        self.mask_unit = mask_unit
        self.patch_size = projection.kernel_size
        self.mask_token = mask_token(projection.out_channels)
        self.head = nn.Linear(
            self.backbone.num_features, projection.in_channels * self.patch_size[0] * self.patch_size[1]
        )

    def sample_mask(self, view: Tensor) -> Tensor:
        """(B, N) bool, True at masked patches, random on each call; squares at the border may be cut."""
        rows, columns = grid(self.backbone, view)
        unit = min(self.mask_unit, max(rows, columns) - 1)  # so that there are at least two squares
        coarse = math.ceil(rows / unit), math.ceil(columns / unit)
        squares = self.mask(view.new_ones(len(view), coarse[0] * coarse[1], dtype=torch.bool), coarse)
        fine = squares.unflatten(1, coarse).repeat_interleave(unit, 1).repeat_interleave(unit, 2)
        return fine[:, :rows, :columns].flatten(1)

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Absolute error, mean over the pixels of the masked patches of all global views."""
        views = global_views(batch.views)
        # Random numbers are generated per view, so that they are distributed over processes as the examples are.
        view, mask = torch.cat(views), torch.cat([self.sample_mask(view) for view in views])
        x = torch.where(mask.unsqueeze(-1), self.mask_token, embed(self.backbone, view))
        predictions = self.head(encode(self.backbone, view, embeddings=x).tokens).float()
        errors = (predictions - patches(view, self.patch_size)).abs().mean(dim=-1)  # (B, N)
        return {"loss": mean_over(errors, mask)}  # cut squares make the counts differ
