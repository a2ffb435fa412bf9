"""For ONNX runtimes: one file with its weights."""

from pathlib import Path

import torch

from ssl_zoo.encoder import Encoder
from ssl_zoo.exporters.base import check_features, dynamic_shape, example_inputs, explain_failures


def export_onnx(encoder: Encoder, folder: Path) -> str:
    """Writes an ONNX file, with the features of onnxruntime compared; returns how to load it."""
    import onnxruntime  # type: ignore[import-untyped]

    path = folder / "encoder.onnx"
    with explain_failures("onnx"):
        torch.onnx.export(
            encoder.network,
            (example_inputs(encoder),),
            path,
            input_names=["input"],
            output_names=["features"],
            dynamic_shapes=(dynamic_shape(encoder),),
            dynamo=True,
            external_data=False,
            verbose=False,
        )
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    check_features(encoder, lambda x: torch.from_numpy(session.run(None, {"input": x.numpy()})[0]), "onnx")
    return 'import onnxruntime; session = onnxruntime.InferenceSession("encoder.onnx")'
