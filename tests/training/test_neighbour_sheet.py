"""The sheet at the end of a run shows the evaluated images, labelled or not, and costs no second evaluation."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ssl_zoo.data.image.module import ImageData
from ssl_zoo.evaluators.base import EvalContext, Features
from ssl_zoo.training import neighbour_sheet
from ssl_zoo.training.neighbour_sheet import run_sheet, show_neighbours
from ssl_zoo.views import Views
from ssl_zoo.views.colour import Normalize
from tests.data.pictures import SETTINGS, write


def context(folder: Path, split: str | None = "train") -> Any:
    data = ImageData(str(folder), **SETTINGS)
    data.prepare_data()
    data.setup()
    plain = Views([[Normalize(data.mean, data.std)]])
    data.attach(plain, plain)
    made = EvalContext(torch.nn.Linear(1, 1), data, "final")  # type: ignore[arg-type]
    if split:
        made.__dict__[split] = made.inputs(split)
    return made


@pytest.fixture
def flat(own_cache: Path, tmp_path: Path) -> Path:
    write(tmp_path / "flat", 20)
    return tmp_path / "flat"


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SSL_ZOO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_run_on_unlabelled_images(flat: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    show_neighbours(tmp_path, context(flat))
    sheet = Image.open(tmp_path / "neighbours.png")
    assert sheet.height > 8 * neighbour_sheet.SIDE
    assert "nearest neighbours: " in caplog.text


def test_the_images_are_those_of_the_rows(flat: Path) -> None:
    made = context(flat)
    images = neighbour_sheet._images(made.data, "train", torch.tensor([3, 11]))
    for image, index in zip(images, (3, 11), strict=True):
        small = np.asarray(image.resize((8, 8), Image.Resampling.NEAREST)).astype(int)
        original = np.asarray(Image.open(flat / f"{index:04d}.png")).astype(int)
        assert np.abs(small - original).max() <= 1


def test_queries_are_those_of_every_encoder(flat: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    queries = []
    search = neighbour_sheet.nearest_rows

    def remember(unit: np.ndarray, asked: np.ndarray, k: int, without: list[int]) -> Any:
        queries.append(without)
        return search(unit, asked, k, without)

    monkeypatch.setattr(neighbour_sheet, "nearest_rows", remember)
    made = context(flat)
    for seed in range(2):
        x = torch.randn(20, 6, generator=torch.Generator().manual_seed(seed))
        made.__dict__["train"] = made.train._replace(x=x)
        run_sheet(made, "train")
    assert queries[0] == queries[1]
    assert len(set(queries[0])) == neighbour_sheet.NUM_QUERIES


@pytest.mark.parametrize("labels", [[1, 0] * 8, [3, 1, 2], [0] * 8 + [1] * 2 + [2] * 2 + [3] * 2 + [4] * 2])
def test_queries_are_spread_over_classes(labels: list[int]) -> None:
    found = neighbour_sheet.choose_queries(np.array(labels), 8)
    assert len(set(found)) == min(8, len(labels))
    counts, shares = (np.bincount(np.take(labels, rows), minlength=4) for rows in (found, range(len(labels))))
    assert np.abs(counts - shares * len(found) / len(labels)).max() < 1
    assert neighbour_sheet.choose_queries(np.full(16, -1), 4) == [2, 6, 10, 14]  # where none is known


def test_at_most_so_many_examples(flat: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbour_sheet, "MAX_EXAMPLES", 5)
    sheet = Image.open(io.BytesIO(run_sheet(context(flat), "train")))
    assert sheet.height < 6 * (neighbour_sheet.SIDE + 60)


def test_without_features_or_for_text_there_is_none(flat: Path, tmp_path: Path) -> None:
    made = context(flat, split=None)
    show_neighbours(tmp_path, made)
    made.__dict__["train"] = Features(torch.ones(2, 2), torch.zeros(2), torch.arange(2))
    made.data.facts["modality"] = "text"
    show_neighbours(tmp_path, made)
    assert not (tmp_path / "neighbours.png").exists()


def test_a_failure_is_only_a_warning(flat: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    made = context(flat)
    del made.data.facts["mean"]
    show_neighbours(tmp_path, made)
    assert "the sheet of neighbours could not be shown" in caplog.text
    assert not (tmp_path / "neighbours.png").exists()
