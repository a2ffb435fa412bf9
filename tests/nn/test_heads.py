"""The shared heads have the layers the papers name."""

import copy

import torch
import torch.nn.functional as F
from torch import nn

from ssl_zoo.nn.heads import DINOHead, Prototypes, mlp


def kinds(module: nn.Sequential) -> list[str]:
    return [type(layer).__name__ for layer in module]


def test_layers_and_biases() -> None:
    head = mlp(4, 8, 3)
    assert kinds(head) == ["Linear", "BatchNorm1d", "ReLU", "Linear"]
    assert head[0].bias is None
    assert head[3].bias is not None
    assert kinds(mlp(4, 3)) == ["Linear"]
    normed = mlp(4, 8, 8, 3, last_norm=True)
    assert kinds(normed) == ["Linear", "BatchNorm1d", "ReLU"] * 2 + ["Linear", "BatchNorm1d"]
    assert normed[6].bias is None
    assert [layer.out_features for layer in normed if isinstance(layer, nn.Linear)] == [8, 8, 3]
    plain = mlp(4, 8, 3, hidden_norm=False)
    assert kinds(plain) == ["Linear", "ReLU", "Linear"]
    assert plain[0].bias is not None


def test_prototypes_give_cosines_blind_to_lengths() -> None:
    prototypes, z = Prototypes(5, 7), torch.randn(2, 3, 5)
    expected = F.cosine_similarity(z.unsqueeze(-2), prototypes.weight, dim=-1)
    torch.testing.assert_close(prototypes(z), expected)
    with torch.no_grad():
        prototypes.weight *= 4  # type: ignore[misc]
    torch.testing.assert_close(prototypes(3 * z), expected)


def test_prototypes_equal_a_weight_normalised_linear_layer() -> None:
    prototypes, z = Prototypes(5, 7), F.normalize(torch.randn(3, 5), dim=1)
    other = torch.nn.utils.parametrizations.weight_norm(nn.Linear(5, 7, bias=False))
    v, g = other.parametrizations.weight.original1, other.parametrizations.weight.original0
    with torch.no_grad():
        v.copy_(prototypes.weight)
        g.fill_(1)
    torch.testing.assert_close(prototypes(z), other(z))
    prototypes(z).square().sum().backward()
    other(z).square().sum().backward()
    torch.testing.assert_close(prototypes.weight.grad, v.grad)


def test_prototypes_stay_in_float32_under_autocast() -> None:
    prototypes, z = Prototypes(5, 7), torch.randn(3, 5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(prototypes(z), prototypes(z.double().float()))
        assert prototypes(z.bfloat16()).dtype == torch.float32


def test_frozen_prototypes_get_a_zero_gradient_and_pass_theirs_on() -> None:
    head, x = DINOHead(4, 8, 5, 6), torch.randn(3, 4, requires_grad=True)
    torch.testing.assert_close(head(x, frozen=True), head(x), rtol=0, atol=0)
    head(x, frozen=True).square().sum().backward()
    assert x.grad is not None
    assert x.grad.abs().max() > 0
    grad = head.prototypes.weight.grad
    assert grad is not None
    assert not grad.any()
    head(x).square().sum().backward()
    assert head.prototypes.weight.grad.any()  # type: ignore[union-attr]


def test_dino_head_has_the_layers_of_the_paper() -> None:
    head = DINOHead(4, 8, 5, 6)
    assert kinds(head.mlp) == ["Linear", "GELU", "Linear", "GELU", "Linear"]
    assert head(torch.randn(2, 9, 4)).shape == (2, 9, 6)
    copied = copy.deepcopy(head)
    assert torch.equal(copied(torch.ones(1, 4)), head(torch.ones(1, 4)))


def test_dino_head_equals_lightlys() -> None:
    from lightly.models.modules.heads import DINOProjectionHead

    head, x = DINOHead(4, 8, 5, 6), torch.randn(3, 4)
    other = DINOProjectionHead(4, 8, 5, 6, batch_norm=False, norm_last_layer=True)
    theirs = [layer for layer in other.layers if isinstance(layer, nn.Linear)]
    ours = [layer for layer in head.mlp if isinstance(layer, nn.Linear)]
    for mine, their in zip(ours, theirs, strict=True):
        their.load_state_dict(mine.state_dict())
    with torch.no_grad():
        dict(other.last_layer.named_parameters())[
            next(n for n, p in other.last_layer.named_parameters() if p.shape == (6, 5))
        ].copy_(head.prototypes.weight)
    torch.testing.assert_close(head(x), other(x))
