"""Image encoders of transformers give the features of their paper, and features per patch."""

import pytest
import torch

from ssl_zoo.backbones.image_transformers import TransformersImageEncoder, image_transformers_from_config

transformers = pytest.importorskip("transformers")

VIT = {"model_type": "vit", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
       "intermediate_size": 16, "image_size": 16, "patch_size": 8}  # fmt: skip
RESNET = {"model_type": "resnet", "embedding_size": 8, "hidden_sizes": [8, 12], "depths": [1, 1], "layer_type": "basic"}


def test_a_vit_gives_its_class_token_and_its_patches() -> None:
    encoder = image_transformers_from_config(VIT, 16).eval()
    images = torch.randn(2, 3, 16, 16)
    tokens = encoder.model(pixel_values=images).last_hidden_state
    assert encoder.num_features == 16
    assert torch.equal(encoder(images), tokens[:, 0])
    patches = encoder.forward_features(images)
    assert patches.shape == (2, 16, 2, 2)
    assert torch.equal(patches[:, :, 1, 0], tokens[:, 3])


def test_a_resnet_gives_the_mean_over_its_positions() -> None:
    encoder = image_transformers_from_config(RESNET, 32).eval()
    images = torch.randn(2, 3, 32, 32)
    features = encoder.forward_features(images)
    assert encoder.num_features == features.shape[1] == 12
    assert torch.allclose(encoder(images), features.mean((2, 3)))


def test_every_parameter_is_used() -> None:
    """A layer without a gradient would be refused by several processes."""
    encoder: TransformersImageEncoder = image_transformers_from_config(VIT, 16)
    encoder(torch.randn(2, 3, 16, 16)).sum().backward()
    unused = [name for name, parameter in encoder.named_parameters() if parameter.grad is None]
    assert unused == []
