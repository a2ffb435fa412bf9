"""timm alone gives the features of the run, to the bit; in a process that has neither ssl_zoo nor anything of ours."""

import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch

from ssl_zoo.encoder import load
from ssl_zoo.exporters.base import example_inputs
from ssl_zoo.exporters.to_timm import export_timm
from tests.test_encoder import IMAGES, image_encoder, text_encoder, tokenizer

__all__ = ["tokenizer"]


@pytest.mark.parametrize("kind", IMAGES)
@torch.no_grad()
def test_timm_gives_equal_features(kind: str, tmp_path: Path) -> None:
    image_encoder(kind, tmp_path)
    encoder = load(tmp_path)
    folder = tmp_path / "timm"
    folder.mkdir()
    usage = export_timm(encoder, folder).replace("<this folder>", str(folder))
    assert usage.count("\n") == 0
    x = example_inputs(encoder, 3)
    safetensors.torch.save_file({"x": x, "features": encoder(x).contiguous()}, tmp_path / "expected.safetensors")
    lines = f"""
import sys, torch
for name in ("ssl_zoo", "hydra", "lightning", "omegaconf"):
    sys.modules[name] = None  # an import of it fails
from safetensors.torch import load_file
expected = load_file({str(tmp_path / "expected.safetensors")!r})
{usage}
with torch.no_grad():
    assert torch.equal(model(expected["x"]), expected["features"])
"""
    subprocess.run([sys.executable, "-c", lines], check=True, cwd=folder)


def test_what_is_no_timm_model_is_refused(tokenizer: object, tmp_path: Path) -> None:
    text_encoder("ours", tokenizer, tmp_path)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"format=timm: this encoder is no timm model\. Give format="):
        export_timm(load(tmp_path), tmp_path)
