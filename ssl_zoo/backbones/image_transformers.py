"""Image encoders of transformers, with the interface of timm's: (B, C, H, W) -> (B, D), with D as `num_features`."""

from typing import Any

import torch
from torch import Tensor, nn

from ssl_zoo.backbones.transformers_config import model_from_config


class TransformersImageEncoder(nn.Module):
    """An image model of transformers, without its head.

    A transformer with a class token gives that token, after the last norm; any other network the mean of its positions.

    Args:
        model: of transformers, such as `ViTModel`, `Dinov2Model`, `ConvNextModel` or `ResNetModel`.
        image_size: side of the images in pixels.
    """

    def __init__(self, model: Any, image_size: int):
        super().__init__()
        self.model = model
        self.has_class_token = any(name.endswith("cls_token") for name, _ in model.named_parameters())
        if "pooler" in dict(model.named_children()) and self.has_class_token:
            model.pooler = None  # a layer on the class token that only its own pretraining used
        was_training = self.training
        with torch.no_grad():
            blank = torch.zeros(1, model.config.num_channels, image_size, image_size)
            self.num_features = self.eval()(blank).shape[1]
        self.train(was_training)

    def forward(self, images: Tensor) -> Tensor:
        """Maps (B, C, H, W) to (B, D)."""
        features = self._last(images)
        if features.ndim == 4:
            return features.mean((2, 3))
        return features[:, 0] if self.has_class_token else features.mean(1)

    def forward_features(self, images: Tensor) -> Tensor:
        """Maps (B, C, H, W) to the features of its patches, (B, D, rows, columns)."""
        features = self._last(images)
        if features.ndim == 4:
            return features
        patch = getattr(self.model.config, "patch_size", None)
        rows, columns = (side // patch for side in images.shape[2:]) if patch else (0, 0)
        if features.shape[1] < rows * columns or not patch:
            raise ValueError(f"{type(self.model).__name__} gives no features per patch")
        patches = features[:, features.shape[1] - rows * columns :]  # after class and register tokens
        return patches.transpose(1, 2).unflatten(2, (rows, columns))

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Groups for timm's layer-wise learning-rate decay: embeddings, then each block, the last with the norm."""
        block = r"model\.(?:encoder\.)?(?:layers?|stages)\.(\d+)"
        return {"stem": r"model\.embed", "blocks": [(block, None), (r".*norm\.", (99999,))]}

    def _last(self, images: Tensor) -> Tensor:
        features: Tensor = self.model(pixel_values=images).last_hidden_state
        return features


def image_transformers_from_config(config: dict[str, Any], image_size: int) -> TransformersImageEncoder:
    """Creates an image encoder of transformers with random weights, without any file or network.

    Args:
        config: see `ssl_zoo.backbones.transformers_config.plain_config`.
        image_size: side of the images in pixels.
    """
    return TransformersImageEncoder(model_from_config(config), image_size)
