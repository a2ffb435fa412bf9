"""MAE: mask most patches of an image, encode the rest, and reconstruct the masked pixels with a light decoder.

He, Chen, Xie, Li, Dollár, Girshick, "Masked Autoencoders Are Scalable Vision Learners", CVPR 2022,
https://arxiv.org/abs/2111.06377, Section 3. Official code: github.com/facebookresearch/mae.
Letters: B images, N patches, M of them masked, C channels, P patch size, D width.
"""

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from ssl_zoo.backbones.tokens import encode, grid, patch_convolution, patches, sincos, take
from ssl_zoo.checks import fraction, positive
from ssl_zoo.distributed import rand_rows
from ssl_zoo.functional import global_views
from ssl_zoo.method import Batch, Method
from ssl_zoo.nn.masks import num_masked


def pixel_targets(view: Tensor, patch_size: tuple[int, int], normalise: bool) -> Tensor:
    """Pixels (B, N, P * P * C) float32 of the patches of view (B, C, H, W).

    With `normalise`, each patch has mean 0 and variance 1 (Section 3), unless it holds a single value.
    """
    pixels = patches(view, patch_size).float()
    if not normalise or pixels.shape[-1] == 1:
        return pixels
    var, mean = torch.var_mean(pixels, dim=-1, keepdim=True)  # divides by P * P * C - 1, as the official code does
    return (pixels - mean) / (var + 1e-6).sqrt()


class MAE(Method):
    """The encoder sees only the visible patches; the decoder sees their features, and a mask token at masked positions.

    Differs from the official code: the encoder uses the backbone's own positions; the decoder does not see the class
    token, and predicts only the masked patches, which alone enter the loss; linear layers have torch's initialisation
    in the decoder and timm's in the encoder (official: Xavier uniform with zero biases in both).
    """

    def __init__(
        self,
        backbone: nn.Module,
        mask_ratio: float,
        decoder_dim: int,
        decoder_depth: int,
        decoder_num_heads: int,
        normalise_targets: bool,
    ):
        super().__init__(backbone)
        projection = patch_convolution(backbone)
        fraction(mask_ratio=mask_ratio)
        positive(decoder_dim=decoder_dim, decoder_depth=decoder_depth, decoder_num_heads=decoder_num_heads)
        if decoder_dim % 4 or decoder_dim % decoder_num_heads:
            raise ValueError(
                f"method.decoder_dim={decoder_dim} must be a multiple of 4, for its positions, and of "
                f"method.decoder_num_heads={decoder_num_heads}"
            )
        self.mask_ratio = mask_ratio
        self.normalise_targets = normalise_targets
        self.patch_size = projection.kernel_size
        self.project = nn.Linear(self.backbone.num_features, decoder_dim)
        self.mask_token = nn.Parameter(torch.empty(decoder_dim).normal_(std=0.02))
        blocks = [Block(decoder_dim, decoder_num_heads, qkv_bias=True) for _ in range(decoder_depth)]
        self.decoder = nn.Sequential(*blocks, nn.LayerNorm(decoder_dim))
        self.to_pixels = nn.Linear(decoder_dim, projection.in_channels * self.patch_size[0] * self.patch_size[1])

    def divide(self, view: Tensor) -> tuple[Tensor, Tensor]:
        """Indices of the masked patches (B, M) and the visible patches (B, N - M), int64, in random order."""
        rows, columns = grid(self.backbone, view)
        order = rand_rows(len(view), rows * columns, device=view.device).argsort(dim=1)
        count = num_masked(self.mask_ratio, rows * columns)
        return order[:, :count], order[:, count:]

    def reconstruct(self, view: Tensor, visible: Tensor, masked: Tensor) -> Tensor:
        """Predicted targets (B, M, P * P * C) float32 of the patches `masked` (B, M) from the patches `visible`."""
        features = self.project(encode(self.backbone, view, keep=visible).tokens)  # (B, N - M, D)
        x = torch.cat([features, self.mask_token.expand(*masked.shape, -1)], dim=1)
        # Attention is permutation-equivariant: tokens keep this order, each with the position of its patch.
        positions = sincos(grid(self.backbone, view), x.shape[-1], x.device)
        x = self.decoder(x + positions[torch.cat([visible, masked], dim=1)])
        return self.to_pixels(x[:, visible.shape[1] :]).float()

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Squared error, mean over the pixels of the masked patches of all global views."""
        views = global_views(batch.views)
        # Random numbers are generated per view, so that they are distributed over processes as the examples are.
        masked, visible = (torch.cat(x) for x in zip(*(self.divide(view) for view in views), strict=True))
        view = torch.cat(views)
        targets = take(pixel_targets(view, self.patch_size, self.normalise_targets), masked)
        return {"loss": F.mse_loss(self.reconstruct(view, visible, masked), targets)}
