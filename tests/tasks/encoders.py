"""Encoders that a test can predict: the mean colour of an image, and how often each token occurs in a text."""

from pathlib import Path

import torch
from torch import Tensor, nn

from ssl_zoo.backbones.image import image_backbone
from ssl_zoo.data.text.tokenizer import TextTokenizer, train_tokenizer
from ssl_zoo.encoder import Encoder, save_encoder

INPUT = {"image_size": 8, "in_chans": 3, "mean": [0.0] * 3, "std": [1.0] * 3, "bits": None}


class MeanColour(nn.Module):
    num_features = 3

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.images = 0

    def forward(self, x: Tensor) -> Tensor:
        self.images += len(x)
        return self.scale * x.mean(dim=(2, 3))


class TokenCounts(nn.Module):
    def __init__(self, tokenizer: TextTokenizer):
        super().__init__()
        self.num_features = tokenizer.vocab_size
        self.padding = tokenizer.pad_id
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        counts = nn.functional.one_hot(x, self.num_features) * (x != self.padding)[..., None]
        return self.scale * counts.sum(dim=1).float()


def colour_encoder(in_chans: int = 3) -> Encoder:
    about = {**INPUT, "in_chans": in_chans, "mean": [0.0] * in_chans, "std": [1.0] * in_chans}
    return Encoder(MeanColour(), {"modality": "image", "arguments": {"name": "colours"}, "input": about})


def word_encoder(folder: Path) -> Encoder:
    made = train_tokenizer(["the movie was great", "a bad film and a good one"] * 5, "bpe", 300, lowercase=True)
    path = folder / "tokenizer.json"
    made.save(str(path))
    tokenizer = TextTokenizer(path)
    manifest = {"modality": "text", "arguments": {}, "input": {"max_length": 32}}
    return Encoder(TokenCounts(tokenizer), manifest, tokenizer)


def saved_encoder(folder: Path) -> Path:
    """An encoder file as a run leaves it, with random weights."""
    folder.mkdir(parents=True, exist_ok=True)
    arguments = {"name": "resnet10t", "in_chans": 3, "image_size": 8, "small_stem": True}
    manifest = {
        "format": "ssl_zoo.encoder", "version": 1, "modality": "image",
        "builder": "ssl_zoo.backbones.image.image_backbone", "arguments": arguments,
        "num_features": 512, "pooling": "avg", "input": INPUT,
        "training": {"method": "simclr", "overrides": ["data=digits"]},
    }  # fmt: skip
    save_encoder(folder, image_backbone(**arguments), manifest, None)
    return folder
