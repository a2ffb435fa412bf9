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


@torch.no_grad()
def test_timm_gives_equal_features(tmp_path: Path) -> None:
    usages = {}
    for kind in IMAGES:
        run, folder = tmp_path / kind, tmp_path / kind / "timm"
        folder.mkdir(parents=True)
        image_encoder(kind, run)
        encoder = load(run)
        usage = export_timm(encoder, folder).replace("<this folder>", str(folder))
        assert "\n" not in usage
        usages[str(folder)] = usage
        x = example_inputs(encoder, 3)
        safetensors.torch.save_file({"x": x, "features": encoder(x).contiguous()}, folder / "expected.safetensors")
    lines = f"""
import os, sys, torch
from safetensors.torch import load_file
for name in ("ssl_zoo", "hydra", "lightning", "omegaconf"):
    sys.modules[name] = None  # an import of it fails
for folder, usage in {usages!r}.items():
    sys.path.insert(0, folder)
    sys.modules.pop("ssl_zoo_encoder", None)
    exec(usage)
    expected = load_file(os.path.join(folder, "expected.safetensors"))
    with torch.no_grad():
        assert torch.equal(model(expected["x"]), expected["features"]), folder
"""
    subprocess.run([sys.executable, "-c", lines], check=True)


def test_what_is_no_timm_model_is_refused(tokenizer: object, tmp_path: Path) -> None:
    text_encoder("ours", tokenizer, tmp_path)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"format=timm: this encoder is no timm model\. Give format="):
        export_timm(load(tmp_path), tmp_path)
