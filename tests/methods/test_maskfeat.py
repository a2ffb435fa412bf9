"""MaskFeat's histograms against a loop over pixels; its loss at hidden patches only."""

import math

import pytest
import timm
import torch
from torch import Tensor, nn

from ssl_zoo.backbones import tokens
from ssl_zoo.backbones.image import image_backbone
from ssl_zoo.method import Batch
from ssl_zoo.methods.maskfeat import MaskFeat, hog
from ssl_zoo.nn import masks

LABELS = torch.zeros(4, dtype=torch.long)


def make(image_size: int = 16, in_chans: int = 3, **kwargs: object) -> MaskFeat:
    small = {"depth": 2, "embed_dim": 32, "num_heads": 2, "global_pool": "avg", "fc_norm": False}
    backbone = image_backbone("vit_tiny_patch16_224", in_chans, image_size, **small, **kwargs)  # type: ignore[arg-type]
    return MaskFeat(backbone, mask_ratio=0.4, num_bins=9, cell_size=8)


def naive_hog(image: Tensor, cell: tuple[int, int], num_bins: int) -> Tensor:
    """One channel (H, W) -> (num_bins, rows, columns) of cells."""
    h, w = image.shape
    out = torch.zeros(num_bins, h // cell[0], w // cell[1])
    for y in range(h):
        for x in range(w):
            dy = float(image[y + 1, x] - image[y - 1, x]) if 0 < y < h - 1 else 0.0
            dx = float(image[y, x + 1] - image[y, x - 1]) if 0 < x < w - 1 else 0.0
            degrees = math.degrees(math.atan2(dy, dx)) % 180
            out[int(degrees // (180 / num_bins)) % num_bins, y // cell[0], x // cell[1]] += math.hypot(dy, dx)
    return out / out.square().sum(dim=0).sqrt().clamp(min=1e-12)


@pytest.mark.parametrize(("cell", "num_bins"), [((4, 4), 9), ((8, 4), 6), ((1, 1), 9)])
def test_hog_equals_the_loop_over_pixels(cell: tuple[int, int], num_bins: int) -> None:
    images = torch.randn(2, 3, 8, 12)
    found = hog(images, cell, num_bins)
    for b in range(2):
        for c in range(3):
            torch.testing.assert_close(found[b, c], naive_hog(images[b, c], cell, num_bins))


def test_hog_of_a_slope_has_one_direction() -> None:
    y, x = torch.meshgrid(torch.arange(8.0), torch.arange(8.0), indexing="ij")
    for degrees in (10, 50, 90, 170):
        rad = math.radians(degrees)
        ramp = (x * math.cos(rad) + y * math.sin(rad))[None, None]
        middle = hog(ramp, (2, 2), 9)[0, 0, :, 1:3, 1:3]
        expected = torch.zeros(9).index_fill(0, torch.tensor(degrees // 20), 1.0)
        torch.testing.assert_close(middle, expected.view(9, 1, 1).expand(9, 2, 2))
        torch.testing.assert_close(hog(-7 * ramp + 3, (2, 2), 9), hog(ramp, (2, 2), 9))  # blind to sign and scale
    assert (hog(torch.ones(1, 1, 8, 8), (2, 2), 9) == 0).all()


def test_targets_are_the_cells_of_each_patch() -> None:
    method, view = make(16, patch_size=4), torch.randn(2, 3, 16, 16)
    method.cell, method.cells = (2, 2), (2, 2)
    cells, targets = hog(view, (2, 2), 9), method.targets(view)
    assert targets.shape == (2, 16, 3 * 9 * 4)
    torch.testing.assert_close(targets[1, 1 * 4 + 2], cells[1, :, :, 2:4, 4:6].flatten())


@pytest.mark.parametrize(("image_size", "patch", "cell"), [(16, 2, 2), (8, 1, 1), (32, 16, 8), (28, 14, 2)])
def test_cells_divide_patches(image_size: int, patch: int, cell: int) -> None:
    method = make(image_size, in_chans=1, patch_size=patch)
    assert method.cell == (cell, cell)
    assert method.targets(torch.randn(2, 1, image_size, image_size)).shape[-1] == method.head.out_features


def test_the_loss_is_the_squared_error_at_hidden_patches_only() -> None:
    method, view = make(), torch.randn(4, 3, 16, 16)
    torch.manual_seed(1)
    loss = method(Batch([view], LABELS, LABELS), 0.0)["loss"]
    torch.manual_seed(1)
    mask = masks.BlockMask(0.4)(torch.ones(4, 64, dtype=torch.bool), (8, 8))
    x = tokens.embed(method.backbone, view).clone()
    x[mask] = method.mask_token
    predictions = method.head(tokens.encode(method.backbone, view, embeddings=x).tokens)
    targets = method.targets(view)
    errors = [(predictions[b, n] - targets[b, n]).square().mean() for b, n in mask.nonzero().tolist()]
    torch.testing.assert_close(loss, torch.stack(errors).mean())


def test_a_head_that_gives_zero_has_the_loss_of_unit_histograms() -> None:
    method = make()
    nn.init.zeros_(method.head.weight)
    nn.init.zeros_(method.head.bias)
    loss = method(Batch([torch.randn(4, 3, 16, 16)], LABELS, LABELS), 0.0)["loss"]
    assert loss.item() == pytest.approx(1 / 9, rel=1e-5)  # squares of a histogram of 9 bins sum to 1


def test_every_parameter_learns() -> None:
    method = make()
    method(Batch([torch.randn(4, 3, 16, 16)] * 2, LABELS, LABELS), 0.0)["loss"].backward()
    assert [name for name, p in method.named_parameters() if p.grad is None] == []


def test_a_network_without_patches_is_refused() -> None:
    with pytest.raises(ValueError, match="needs a ViT"):
        MaskFeat(timm.create_model("resnet10t", num_classes=0), 0.4, 9, 8)
