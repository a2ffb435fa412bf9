"""Predictions of files and texts: in order, as a softmax, with the unreadable ones named, and nothing half-written."""

import csv
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ssl_zoo.data.examples import open_examples
from ssl_zoo.data.text.tokenizer import TextTokenizer
from ssl_zoo.encoder import load
from ssl_zoo.evaluators.linear import Probe, StandardizedProbe
from ssl_zoo.evaluators.proportion import Proportion
from ssl_zoo.probe_file import keep_probe
from ssl_zoo.tasks.predict import listed, load_classifier, predictions, write_predictions
from tests.test_encoder import image_encoder, text_encoder, tokenizer  # noqa: F401  (a fixture)

NAMES = ["cat", 'dog, "big"', "frog"]


def keep(folder: Path) -> None:
    """A random classifier beside the encoder in `folder`."""
    encoder = load(folder)
    width = encoder.num_features
    torch.manual_seed(0)
    classifier = Probe(torch.randn(3, width), torch.randn(3), torch.arange(3))
    probe = StandardizedProbe(torch.randn(width), torch.rand(width), classifier)
    keep_probe(encoder.manifest["weights_hash"], folder, probe, NAMES, "linear probe", Proportion(0.5, 10))


def written(folder: Path, files: Path, batch_size: int = 3) -> tuple[list[list[str]], list[str]]:
    encoder, kept = load_classifier(str(folder))
    examples = open_examples(encoder.modality, files)
    found = predictions(encoder, kept, listed(examples), nullcontext, batch_size)
    errors = write_predictions(folder / "predictions.csv", found, kept.class_names, examples)
    with open(folder / "predictions.csv", encoding="utf-8", newline="") as file:
        return list(csv.reader(file)), errors


def test_images(tmp_path: Path) -> None:
    image_encoder("conv", tmp_path)
    keep(tmp_path)
    files = tmp_path / "files"
    (files / "b").mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (5, 40, 30, 3), dtype=np.uint8)
    names = ["b/z.png", "b/a.png", "b/x.png", "b/y.png", "b/ü.png"]
    for name, image in zip(names, pixels, strict=True):
        Image.fromarray(image).save(files / name)
    (files / "b" / "m.png").write_bytes(b"")
    (header, *rows), errors = written(tmp_path, files)
    assert header == ["path", "class", "probability", *NAMES]
    assert [row[0].rpartition("/")[2] for row in rows] == ["a.png", "m.png", "x.png", "y.png", "z.png", "ü.png"]
    assert rows[1][1:] == ["", "", "", "", ""]
    assert len(errors) == 1
    assert "m.png" in errors[0]
    # Against one image at a time.
    encoder, kept = load_classifier(str(tmp_path))
    for row in (rows[0], *rows[2:]):
        expected = kept.probe.logits(encoder.embed([files / "b" / row[0].rpartition("/")[2]])).softmax(1)[0]
        assert torch.tensor([float(share) for share in row[3:]]).allclose(expected, atol=1e-5)
        assert row[1] == NAMES[int(expected.argmax())]
        assert float(row[2]) == max(float(share) for share in row[3:])


def test_texts(tmp_path: Path, tokenizer: TextTokenizer) -> None:  # noqa: F811
    text_encoder("ours", tokenizer, tmp_path)
    keep(tmp_path)
    lines = ["a film", "so bad it moved me to tears again and again", "that I never saw", "again"]
    (tmp_path / "new.txt").write_text("\n".join(lines))
    (header, *rows), _ = written(tmp_path, tmp_path / "new.txt")
    assert header[0] == "index"
    assert [row[0] for row in rows] == ["0", "1", "2", "3"]
    encoder, kept = load_classifier(str(tmp_path))
    expected = kept.probe.logits(encoder.embed(lines)).softmax(1)
    assert torch.tensor([[float(share) for share in row[3:]] for row in rows]).allclose(expected, atol=1e-5)


def test_nothing_to_read_leaves_no_file(tmp_path: Path) -> None:
    image_encoder("conv", tmp_path)
    keep(tmp_path)
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "a.png").write_bytes(b"no")
    with pytest.raises(ValueError, match=r"nothing there can be read, such as .*a\.png"):
        written(tmp_path, tmp_path / "files")
    assert not (tmp_path / "predictions.csv").exists()


def test_a_probe_of_other_images_decides_how_they_are_resized(tmp_path: Path) -> None:
    image_encoder("conv", tmp_path)
    keep(tmp_path)
    encoder: Any = load_classifier(str(tmp_path))[0]
    assert encoder.inputs["interpolation"] == "bilinear"
    with pytest.raises(ValueError, match="encoder=timm:resnet18: no classifier is kept with it"):
        load_classifier("timm:resnet18")
