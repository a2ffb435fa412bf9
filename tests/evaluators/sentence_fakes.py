"""Texts for evaluators of sentences: tiny sets with the folders and columns of the real ones, and a bag of letters."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas
import torch
from torch import Tensor, nn

from ssl_zoo.evaluators.base import EvalContext
from ssl_zoo.method import Method
from tests.evaluators.fakes import FakeData

REAL = Path(os.environ.get("SSL_ZOO_DATA") or "/nowhere")


class Letters(FakeData):
    """Text data whose tokens are the letters."""

    def __init__(self) -> None:
        rows = torch.ones(4, 3, dtype=torch.int64), torch.zeros(4, dtype=torch.int64)
        super().__init__(rows, rows, modality="text")

    def tokenise(self, texts: Sequence[str]) -> Tensor:
        longest = max(map(len, texts), default=1)
        return torch.tensor([[min(ord(letter), 127) for letter in text.ljust(longest, "\0")] for text in texts])


class Bag(nn.Module):
    """How often each letter occurs, (B, 128)."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))  # tells the device

    def forward(self, ids: Tensor) -> Tensor:
        assert not self.training
        assert not torch.is_grad_enabled()
        counts = nn.functional.one_hot(ids, 128).sum(dim=1).float()
        counts[:, 0] = 0  # padding
        return counts


def letters_context(encoder: nn.Module | None = None, phase: Any = "final", **settings: Any) -> EvalContext:
    return EvalContext(Method(encoder or Bag()), Letters(), phase, **settings)


def write_split(place: Path, split: str, **columns: list) -> Path:
    place.mkdir(parents=True, exist_ok=True)
    pandas.DataFrame(columns).to_parquet(place / f"{split}-00000-of-00001.parquet")
    return place
