from pathlib import Path
from typing import Any

import pytest
import torch

from ssl_zoo.encoder import load
from ssl_zoo.exporters.base import example_inputs
from ssl_zoo.exporters.to_hf import export_hf
from tests.test_encoder import image_encoder, text_encoder, tokenizer

__all__ = ["tokenizer"]

transformers = pytest.importorskip("transformers")


@torch.no_grad()
def test_a_text_encoder_with_its_tokenizer(tokenizer: Any, tmp_path: Path) -> None:
    text_encoder("transformers", tokenizer, tmp_path)
    encoder = load(tmp_path)
    folder = tmp_path / "hf"
    folder.mkdir()
    export_hf(encoder, folder)
    model = transformers.AutoModel.from_pretrained(folder).eval()
    of_folder = transformers.AutoTokenizer.from_pretrained(folder)
    batch = of_folder(["so bad", "it moved me"], padding=True, return_tensors="pt", add_special_tokens=False)
    assert batch.input_ids[0, :2].tolist() == encoder.transform("so bad")[:2].tolist()
    tokens = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).last_hidden_state
    weights = batch.attention_mask[..., None]
    pooled = (tokens * weights).sum(1) / weights.sum(1)
    assert torch.allclose(pooled, encoder.embed(["so bad", "it moved me"]), atol=1e-5)


@torch.no_grad()
def test_an_image_encoder_through_the_wrapper_of_timm(tmp_path: Path) -> None:
    image_encoder("vit", tmp_path)
    encoder = load(tmp_path)
    folder = tmp_path / "hf"
    folder.mkdir()
    export_hf(encoder, folder)
    model = transformers.AutoModel.from_pretrained(folder).eval()
    x = example_inputs(encoder)
    assert torch.allclose(model(pixel_values=x).pooler_output, encoder(x), atol=1e-6)


def test_what_transformers_does_not_have(tokenizer: Any, tmp_path: Path) -> None:
    image_encoder("conv", tmp_path)
    with pytest.raises(ValueError, match="no such stem"):
        export_hf(load(tmp_path), tmp_path)
    text_encoder("ours", tokenizer, tmp_path)
    with pytest.raises(ValueError, match="no such text encoder"):
        export_hf(load(tmp_path), tmp_path)
