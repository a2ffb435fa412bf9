"""data2vec's targets and loss against loops, for images and text; its teacher against the paper's schedule."""

import math

import pytest
import timm
import torch
from torch import Tensor, nn

from ssl_zoo.backbones import tokens
from ssl_zoo.backbones.image import image_backbone
from ssl_zoo.backbones.text import TextTransformer
from ssl_zoo.method import Batch
from ssl_zoo.methods.data2vec import Data2Vec, layer_targets
from ssl_zoo.nn import masks

LABELS = torch.zeros(4, dtype=torch.long)
SMALL = {"depth": 3, "embed_dim": 32, "num_heads": 2}


def image() -> tuple[nn.Module, Tensor]:
    backbone = image_backbone("vit_tiny_patch16_224", 3, 16, global_pool="avg", fc_norm=False, **SMALL)  # type: ignore[arg-type]
    return backbone, torch.randn(4, 3, 16, 16)


def text() -> tuple[nn.Module, Tensor]:
    ids = torch.randint(4, 50, (4, 20))
    ids[0, 5:] = 0  # padding, so that rows hide unequally many tokens
    return TextTransformer("eva02_tiny_patch14_224", 50, 24, **SMALL), ids  # type: ignore[arg-type]


def make(backbone: nn.Module, ratio: float = 0.4, head_layers: int = 1, beta: float = 2.0) -> Data2Vec:
    return Data2Vec(backbone, masks.RandomMask(ratio), 2, head_layers, beta, ema_decay=0.9, final_decay=0.99)


def test_targets_are_the_mean_of_the_last_layers_each_normalised() -> None:
    layers = [3 * torch.randn(2, 5, 8) + 1 for _ in range(4)]
    targets = layer_targets(layers, 3)
    for b in range(2):
        for n in range(5):
            total = torch.zeros(8)
            for layer in layers[1:]:
                x = layer[b, n]
                total += (x - x.mean()) / x.std(correction=0)
            torch.testing.assert_close(targets[b, n], total / 3, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(layer_targets(layers, 9), layer_targets(layers, 4))


@pytest.mark.parametrize("kind", [image, text])
@pytest.mark.parametrize("beta", [0.5, 4.0])
def test_the_loss_is_smooth_l1_at_hidden_tokens(kind: type, beta: float) -> None:
    backbone, view = kind()
    method = make(backbone, head_layers=2, beta=beta).eval()
    with torch.no_grad():
        for p in method.backbone.parameters():  # so that teacher and student differ
            p.mul_(1.3)
    torch.manual_seed(1)
    loss = method(Batch([view], LABELS, LABELS), 0.0)["loss"]
    torch.manual_seed(1)
    mask = masks.RandomMask(0.4)(tokens.eligible(backbone, view), tokens.grid(backbone, view))
    targets = layer_targets(tokens.encode(method.teacher, view).layers, 2)
    x = tokens.embed(backbone, view).clone()
    x[mask] = method.mask_token
    predictions = method.head(tokens.encode(backbone, view, embeddings=x).tokens)
    errors: list[float] = []
    for b, n in mask.nonzero().tolist():
        for p, t in zip(predictions[b, n].tolist(), targets[b, n].tolist(), strict=True):
            d = abs(p - t)
            errors.append(d * d / (2 * beta) if d <= beta else d - beta / 2)
    assert mask.sum(dim=1).min() < mask.sum(dim=1).max() or kind is image
    assert loss.item() == pytest.approx(math.fsum(errors) / len(errors), rel=1e-4)


def test_a_head_that_gives_zero_has_the_loss_of_unit_variance() -> None:
    backbone, view = image()
    method = Data2Vec(backbone, masks.BlockMask(0.5), 1, 1, 1000.0, 0.9, 0.9)
    nn.init.zeros_(method.head[0].weight)  # type: ignore[arg-type]
    nn.init.zeros_(method.head[0].bias)  # type: ignore[arg-type]
    loss = method(Batch([view], LABELS, LABELS), 0.0)["loss"]
    assert loss.item() == pytest.approx(0.5 / 1000, rel=1e-3)  # squares of mean 1, over 2 beta


def test_the_teacher_sees_everything_drops_nothing_and_takes_no_gradient() -> None:
    backbone = image_backbone("vit_tiny_patch16_224", 3, 16, proj_drop_rate=0.5, **SMALL)  # type: ignore[arg-type]
    method, view = make(backbone).train(), torch.randn(4, 3, 16, 16)
    method(Batch([view], LABELS, LABELS), 0.0)["loss"].backward()
    assert method.backbone.training
    first, second = (tokens.encode(method.teacher, view).tokens for _ in range(2))
    assert torch.equal(first, second)
    assert all(p.grad is None for p in method.teacher.parameters())
    assert any(name.startswith("teacher.") for name in method.state_dict())
    assert method.encoder is method.backbone


@pytest.mark.parametrize("kind", [image, text])
def test_every_parameter_learns(kind: type) -> None:
    backbone, view = kind()
    method = make(backbone)
    method(Batch([view, view], LABELS, LABELS), 0.0)["loss"].backward()
    idle = [name for name, p in method.named_parameters() if p.grad is None and p.requires_grad]
    assert idle == []


@pytest.mark.parametrize("progress", [0.0, 0.5, 0.999])
def test_the_teacher_moves_by_a_decay_that_grows_linearly(progress: float) -> None:
    method = make(image()[0])
    before = [p.clone() for p in method.teacher.parameters()]
    with torch.no_grad():
        for p in method.backbone.parameters():
            p.add_(1)
    method.after_step(progress)
    for now, old in zip(method.teacher.parameters(), before, strict=True):
        torch.testing.assert_close(now, old + 1 - (0.9 + 0.09 * progress), atol=1e-6, rtol=1e-5)


def test_a_collapsed_teacher_shows() -> None:
    backbone, view = image()
    method = make(backbone)
    alive = method(Batch([view], LABELS, LABELS), 0.0)["target_std"]
    with torch.no_grad():
        for p in method.teacher.parameters():
            p.zero_()
    assert method(Batch([view], LABELS, LABELS), 0.0)["target_std"] < 1e-3 < alive


def test_bad_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="has no tokens"):
        make(timm.create_model("resnet10t", num_classes=0))
    with pytest.raises(ValueError, match=r"method\.final_decay"):
        Data2Vec(image()[0], masks.RandomMask(0.4), 2, 1, 2.0, 0.9, 1.0)
