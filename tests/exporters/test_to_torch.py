from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ssl_zoo.encoder import load
from ssl_zoo.exporters.base import example_inputs
from ssl_zoo.exporters.to_torch import export_torch
from tests.test_encoder import image_encoder, text_encoder, tokenizer

__all__ = ["tokenizer"]


@torch.no_grad()
def test_a_program_for_batches_of_any_size(tmp_path: Path) -> None:
    image_encoder("vit", tmp_path)
    encoder = load(tmp_path)
    assert "torch.export.load" in export_torch(encoder, tmp_path)
    program = torch.export.load(tmp_path / "encoder.pt2").module()
    x = example_inputs(encoder, 5)
    assert torch.allclose(program(x), encoder(x), atol=1e-5)


@torch.no_grad()
def test_a_program_for_texts_of_any_length(tokenizer: Any, tmp_path: Path) -> None:
    text_encoder("ours", tokenizer, tmp_path)
    encoder = load(tmp_path)
    export_torch(encoder, tmp_path)
    program = torch.export.load(tmp_path / "encoder.pt2").module()
    for texts in (["so bad", "it moved me to tears again"], ["so bad"] * 3):
        ids = encoder.collate([encoder.transform(text) for text in texts])
        assert torch.allclose(program(ids), encoder(ids), atol=1e-5)


class Unexportable(nn.Module):
    num_features = 1

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=(2, 3))[:, :1] * (2 if x.sum() > 0 else 1)


def test_what_cannot_be_exported_is_one_line(tmp_path: Path) -> None:
    image_encoder("vit", tmp_path)
    encoder = load(tmp_path)
    encoder.network = Unexportable()
    with pytest.raises(
        ValueError, match=r"^format=torch: this network cannot be exported: \w+: [^\n]*Give another format$"
    ):
        export_torch(encoder, tmp_path)
