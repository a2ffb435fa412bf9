"""Denoising autoencoder: reconstruct a clean image from the features of a noisy one.

Vincent, Larochelle, Bengio, Manzagol, "Extracting and Composing Robust Features with Denoising Autoencoders", ICML
2008, Section 2.3, https://www.cs.toronto.edu/~larocheh/publications/icml-2008-denoising-autoencoders.pdf; Gaussian
noise and squared error: Vincent et al., "Stacked Denoising Autoencoders", JMLR 2010,
https://www.jmlr.org/papers/v11/vincent10a.html.
Letters: B images, C H W image, D width.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_zoo.checks import positive
from ssl_zoo.distributed import rand_rows
from ssl_zoo.functional import global_views
from ssl_zoo.method import Batch, Method


def randn_rows(*shape: int, device: torch.device) -> Tensor:
    """(B, ...) standard normal float32, computed from `rand_rows` by the inverse of the distribution function."""
    # The shift avoids erfinv(-1), which is infinite; no value exceeds 5.5 in magnitude.
    return torch.erfinv(rand_rows(*shape, device=device) * 2 - (1 - 2**-24)) * math.sqrt(2)


class Decoder(nn.Sequential):
    """Maps (B, D) to (B, C, S, S) with S >= image_size; S equals it for 8, 28, 32, 64, 96, 224, ...

    A linear layer gives at most 7x7 positions; each doubling of the resolution is followed by a convolution.
    """

    def __init__(self, dim: int, hidden_dim: int, in_chans: int, image_size: int):
        side, doublings = image_size, 0
        while side > 7:
            side, doublings = math.ceil(side / 2), doublings + 1
        layers: list[nn.Module] = [nn.Linear(dim, hidden_dim * side**2), nn.Unflatten(1, (hidden_dim, side, side))]
        for _ in range(doublings):
            layers += [nn.BatchNorm2d(hidden_dim), nn.ReLU(inplace=True), nn.Upsample(scale_factor=2)]
            layers.append(nn.Conv2d(hidden_dim, hidden_dim, 3, padding=1))
        layers += [nn.BatchNorm2d(hidden_dim), nn.ReLU(inplace=True), nn.Conv2d(hidden_dim, in_chans, 3, padding=1)]
        super().__init__(*layers)


class Denoise(Method):
    """A backbone as encoder and a convolutional decoder.

    Differs from the papers: the network is trained end to end, not layer by layer, and encoder and decoder do not share
    weights.

    Args:
        noise_std: standard deviation of the noise, relative to pixels of the data with standard deviation 1.
        hidden_dim: channels of the decoder.
    """

    def __init__(self, backbone: nn.Module, noise_std: float, hidden_dim: int, in_chans: int, image_size: int):
        super().__init__(backbone)
        positive(noise_std=noise_std, hidden_dim=hidden_dim)
        self.noise_std = noise_std
        self.decoder = Decoder(self.backbone.num_features, hidden_dim, in_chans, image_size)

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Squared error against the clean images, mean over the pixels of all global views."""
        if batch.views[0].ndim != 4:
            raise ValueError(f"method=denoise needs images (B, C, H, W), not views of {tuple(batch.views[0].shape)}")
        views = global_views(batch.views)
        # Random numbers are generated per view, so that they are distributed over processes as the examples are.
        noisy = [view + self.noise_std * randn_rows(*view.shape, device=view.device) for view in views]
        clean = torch.cat(views).float()
        images = self.decoder(self.backbone(torch.cat(noisy)))[..., : clean.shape[-2], : clean.shape[-1]]
        return {"loss": F.mse_loss(images.float(), clean)}
