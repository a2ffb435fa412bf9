from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ssl_zoo.encoder import load
from ssl_zoo.exporters.to_onnx import export_onnx
from tests.test_encoder import image_encoder, text_encoder, tokenizer

__all__ = ["tokenizer"]

onnxruntime = pytest.importorskip("onnxruntime")


def test_onnxruntime_gives_the_features(tokenizer: Any, tmp_path: Path) -> None:
    for kind in ("image", "text"):
        folder = tmp_path / kind
        folder.mkdir()
        if kind == "image":
            image_encoder("conv", folder)
            item: Any = np.full((32, 32, 3), 7, dtype=np.uint8)
        else:
            text_encoder("ours", tokenizer, folder)
            item = "it moved me to tears"
        encoder = load(folder)
        export_onnx(encoder, folder)
        session = onnxruntime.InferenceSession(folder / "encoder.onnx")
        (found,) = session.run(None, {"input": encoder.transform(item)[None].numpy()})
        assert np.allclose(found, encoder.embed([item]).numpy(), atol=1e-5)
