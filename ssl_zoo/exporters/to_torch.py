"""For torch alone: a program of `torch.export`."""

from pathlib import Path

import torch

from ssl_zoo.encoder import Encoder
from ssl_zoo.exporters.base import check_features, dynamic_shape, example_inputs, explain_failures


def export_torch(encoder: Encoder, folder: Path) -> str:
    """Writes a program of `torch.export`, which needs torch alone; returns how to load it."""
    path = folder / "encoder.pt2"
    with explain_failures("torch"):
        program = torch.export.export(
            encoder.network, (example_inputs(encoder),), dynamic_shapes=(dynamic_shape(encoder),)
        )
        torch.export.save(program, path)
        loaded = torch.export.load(path).module()
    check_features(encoder, loaded, "torch")
    return 'import torch; model = torch.export.load("encoder.pt2").module()'
