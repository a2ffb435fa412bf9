import pytest
import torch
from torch import nn

from ssl_zoo.backbones.image import image_backbone
from ssl_zoo.backbones.text import TextTransformer
from ssl_zoo.backbones.token_features import token_features


@torch.no_grad()
def test_cells_of_a_convolutional_network_average_to_its_vector() -> None:
    network = image_backbone("resnet10t", 3, 16).eval()
    x = torch.randn(2, 3, 16, 16)
    features, grid, valid = token_features(network, x)
    assert features.shape == (2, grid[0] * grid[1], network.num_features)
    assert torch.allclose(features.mean(dim=1), network(x), atol=1e-5)
    assert valid.all()


@torch.no_grad()
def test_padding_of_a_text_is_not_valid() -> None:
    network = TextTransformer("vit_tiny_patch16_224", 20, 8, depth=1, embed_dim=16, num_heads=2).eval()
    features, grid, valid = token_features(network, torch.tensor([[5, 6, 0], [7, 0, 0]]))
    assert features.shape == (2, 3, 16)
    assert grid == (1, 3)
    assert valid.tolist() == [[True, True, False], [True, False, False]]


def test_a_network_of_vectors_alone_is_refused() -> None:
    with pytest.raises(ValueError, match="Identity gives no features per patch"):
        token_features(nn.Identity(), torch.zeros(1, 3, 4, 4))
