"""What all formats share: inputs to try, and the comparison of features with those of the original."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ssl_zoo.encoder import Encoder

MAX_DIFFERENCE = 1e-5
"""Largest difference between the features of the exported and the original network, relative to the largest feature."""


def example_inputs(encoder: Encoder, count: int = 2) -> Tensor:
    """Inputs of the right shape, the same in every call: (count, C, S, S) float32, or (count, L) int64 with padding."""
    generator = torch.Generator().manual_seed(0)
    if encoder.modality == "image":
        side = encoder.inputs["image_size"]
        return torch.randn(count, encoder.inputs["in_chans"], side, side, generator=generator)
    assert encoder.tokenizer is not None
    low, high = encoder.tokenizer.num_special, encoder.tokenizer.vocab_size
    length = min(12, encoder.inputs["max_length"])
    ids = torch.randint(low, high, (count, length), generator=generator)
    ids[0, length // 2 :] = encoder.tokenizer.pad_id
    return ids


@torch.no_grad()
def check_features(encoder: Encoder, run: Callable[[Tensor], Tensor], kind: str) -> None:
    """Raises ValueError unless `run`, the exported network, gives the encoder's features for two sizes of batch."""
    for count in (2, 3):
        x = example_inputs(encoder, count)
        expected = encoder(x).float()
        found = run(x).float()
        difference = ((found - expected).abs().max() / expected.abs().max()).item()
        if not difference <= MAX_DIFFERENCE:
            raise ValueError(
                f"format={kind}: the exported network gives other features (by {difference:.1e}). Report this"
            )


@contextmanager
def explain_failures(kind: str) -> Iterator[None]:
    """Turns what the exporter raises, of many types, into one line."""
    try:
        yield
    except Exception as error:
        first = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
        raise ValueError(
            f"format={kind}: this network cannot be exported: {type(error).__name__}: {first[:300]}. "
            "Give another format"
        ) from error


def dynamic_shape(encoder: Encoder) -> dict[int, Any]:
    """Dimensions that may change: the size of a batch, and the length of texts."""
    shape: dict[int, Any] = {0: torch.export.Dim("batch")}
    if encoder.modality == "text":
        shape[1] = torch.export.Dim("length", max=int(encoder.inputs["max_length"]))
    return shape
