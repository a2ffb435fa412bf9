"""Batches of noise in the shapes of a data set that has not been read, to measure the cost of a method before it is."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ssl_zoo.method import Batch
from ssl_zoo.views import Views


class Noise(NamedTuple):
    """A batch before its views.

    Attributes:
        examples: (B, C, S, S) uint8, or (B, L) int64.
        captions: (B, L) int64 of images that have captions, else None.
    """

    examples: Tensor
    captions: Tensor | None


class StandIn:
    """What `training.budget` and `training.estimate` use of a data module.

    Args:
        facts: `expected_facts` of the data module.
        views: those of training.
        batch_size: examples per batch.
        length: tokens of a text example.
    """

    def __init__(self, facts: Mapping[str, Any], views: Views, batch_size: int, length: int = 1):
        self.facts = dict(facts)
        self.views = views
        self.batch_size = batch_size
        self.length = length

    def batch(self) -> Noise:
        """A batch, the same at every call."""
        random = torch.Generator().manual_seed(0)
        if self.facts["modality"] == "text":
            return Noise(self._tokens(self.length, random), None)
        size = (self.batch_size, self.facts["in_chans"], self.facts["image_size"], self.facts["image_size"])
        pixels = torch.randint(256, size, dtype=torch.uint8, generator=random)
        captions = self._tokens(self.facts["max_length"], random) if "vocab_size" in self.facts else None
        return Noise(pixels, captions)

    def _tokens(self, length: int, random: torch.Generator) -> Tensor:
        lowest, highest = self.facts["num_special"], self.facts["vocab_size"]
        return torch.randint(lowest, highest, (self.batch_size, length), generator=random)

    def transfer_batch_to_device(self, batch: Noise, device: torch.device, dataloader_idx: int) -> Noise:
        """Moves a batch to the device."""
        captions = None if batch.captions is None else batch.captions.to(device)
        return Noise(batch.examples.to(device), captions)

    def on_after_batch_transfer(self, batch: Noise, dataloader_idx: int) -> Batch:
        """Computes the views on the device of the batch."""
        indices = torch.arange(len(batch.examples), device=batch.examples.device)
        made = self.views(batch.examples, indices, 0, 0)
        views = made if batch.captions is None else [*made, batch.captions]
        return Batch(views, torch.zeros_like(indices), indices)
