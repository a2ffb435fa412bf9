"""BatchNorm's running statistics under activation checkpointing, where the backward pass computes layers again."""

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor


class KeepStatistics(Callback):
    """Undoes what the backward pass does to running means, variances and counts.

    A layer that is computed again sees the batch twice and would move its statistics twice as far, so that a network
    with checkpointing would be evaluated with others than one without.
    """

    def __init__(self) -> None:
        self.kept: list[tuple[Tensor, Tensor]] = []

    def on_before_backward(self, trainer: Trainer, learner: LightningModule, *_: Any) -> None:
        """Copies the statistics that the forward pass left."""
        layers = [layer for layer in learner.modules() if getattr(layer, "running_var", None) is not None]
        buffers = [buffer for layer in layers for buffer in layer.buffers(recurse=False)]
        self.kept = [(buffer, buffer.clone()) for buffer in buffers]

    @torch.no_grad()
    def on_after_backward(self, *_: Any) -> None:
        """Puts them back."""
        for buffer, value in self.kept:
            buffer.copy_(value)
        self.kept = []
