from pathlib import Path

import pytest
import torch

from ssl_zoo.encoder import load
from ssl_zoo.exporters.base import check_features, example_inputs
from tests.test_encoder import image_encoder


def test_other_features_are_found(tmp_path: Path) -> None:
    image_encoder("vit", tmp_path)
    encoder = load(tmp_path)
    check_features(encoder, encoder, "timm")
    with pytest.raises(ValueError, match="other features"):
        check_features(encoder, lambda x: encoder(x) * 1.001, "timm")
    with pytest.raises(ValueError, match="other features"):
        check_features(encoder, lambda x: encoder(x) * torch.nan, "timm")
    assert torch.equal(example_inputs(encoder), example_inputs(encoder))
