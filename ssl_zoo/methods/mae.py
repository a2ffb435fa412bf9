"""MAE: hide most patches of an image, encode the rest, and let a light decoder fill in the missing pixels.

He, Chen, Xie, Li, Dollár, Girshick, "Masked Autoencoders Are Scalable Vision Learners", CVPR 2022,
https://arxiv.org/abs/2111.06377, Section 3. Official code: github.com/facebookresearch/mae.
Letters: B images, N patches, M of them hidden, C channels, P patch size, D width.
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
    """(B, C, H, W) -> (B, N, P * P * C) float32, each patch with mean 0 and variance 1 if `normalise` (Section 3).

    A patch of a single value, such as one gray pixel, has no variance: it is its own target."""
    pixels = patches(view, patch_size).float()
    if not normalise or pixels.shape[-1] == 1:
        return pixels
    var, mean = torch.var_mean(pixels, dim=-1, keepdim=True)  # divides by P * P * C - 1, as the official code does
    return (pixels - mean) / (var + 1e-6).sqrt()


class MAE(Method):
    """The encoder sees kept patches only; the decoder sees their vectors, and one learned vector at hidden places.

    Differs from the official code: the encoder has the backbone's own positions, the decoder does not see the class
    token, the pixels are predicted at hidden places only, where alone they count, and linear layers start as torch's do
    in the decoder and as timm's in the encoder, where there all of both start from a Xavier uniform distribution with
    zero biases.
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
        """The hidden patches (B, M) of a view and those kept (B, N - M), int64, in random order."""
        rows, columns = grid(self.backbone, view)
        order = rand_rows(len(view), rows * columns, device=view.device).argsort(dim=1)
        count = num_masked(self.mask_ratio, rows * columns)
        return order[:, :count], order[:, count:]

    def reconstruct(self, view: Tensor, keep: Tensor, hidden: Tensor) -> Tensor:
        """Predicted targets (B, M, P * P * C) float32 of the patches `hidden` (B, M), from the patches `keep`."""
        visible = self.project(encode(self.backbone, view, keep=keep).tokens)  # (B, N - M, D)
        x = torch.cat([visible, self.mask_token.expand(*hidden.shape, -1)], dim=1)
        # Attention is blind to order, so tokens stay in this one, each with the position of its place in the image.
        positions = sincos(grid(self.backbone, view), x.shape[-1], x.device)
        x = self.decoder(x + positions[torch.cat([keep, hidden], dim=1)])
        return self.to_pixels(x[:, keep.shape[1] :]).float()

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Squared error, mean over the values of the hidden patches of all global views."""
        views = global_views(batch.views)
        # One draw for each view: its rows are shared out over the processes as the examples are.
        hidden, keep = (torch.cat(parts) for parts in zip(*(self.divide(view) for view in views), strict=True))
        view = torch.cat(views)
        targets = take(pixel_targets(view, self.patch_size, self.normalise_targets), hidden)
        return {"loss": F.mse_loss(self.reconstruct(view, keep, hidden), targets)}
