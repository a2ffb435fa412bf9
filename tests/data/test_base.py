"""The data modules satisfy the protocols."""

from pathlib import Path
from typing import Any

import pytest

from ssl_zoo.data.base import DataModule, EvalData
from ssl_zoo.data.image.module import ImageData
from ssl_zoo.data.pairs import PairData
from ssl_zoo.data.text.module import TextData
from ssl_zoo.method import Batch
from ssl_zoo.views import Views
from ssl_zoo.views.geometry import CenterCrop
from tests.data.pictures import SETTINGS, write

pytestmark = pytest.mark.usefixtures("own_cache")


def images(folder: Path) -> ImageData:
    for split in ("train", "test"):
        for label in ("cat", "dog"):
            write(folder / split / label, 2)
    return ImageData(path=str(folder), **SETTINGS)


def pairs(folder: Path) -> PairData:
    images(folder)
    settings = {"tokenizer": {"vocab_size": 300}, "max_length": 8, "templates": ["a photo of a {}"]}
    return PairData(path=str(folder), **settings, **SETTINGS)


def text(folder: Path) -> TextData:
    for split in ("train", "test"):
        for label in ("good", "bad"):
            path = folder / split / label / "1.txt"
            path.parent.mkdir(parents=True)
            path.write_text(f"a {split} text that says {label} " * 8)
    return TextData(path=str(folder), batch_size=2, seed=0, row_length=8, tokenizer={"vocab_size": 300})


@pytest.mark.parametrize("make", [images, pairs, text])
def test_satisfies_the_protocols(make: Any, tmp_path: Path) -> None:
    data = make(tmp_path)
    expected = data.expected_facts
    data.prepare_data()
    data.setup()
    views = Views([[]] if make is text else [[CenterCrop(8)]])
    data.attach(views, views)
    assert isinstance(data, EvalData)
    assert isinstance(data, DataModule)
    assert expected["modality"] == data.facts["modality"]
    assert (data.batch_size, data.start_batch) == (2, 0)
    assert isinstance(data.content, str)
    assert data.num_train >= 2
    assert data.rows_have_labels == (make is not text)  # packed rows have none
    assert hasattr(data, "tokenizer") == (make is not images)
    loaded = next(iter(data.train_dataloader()))
    assert isinstance(data.on_after_batch_transfer(loaded, 0), Batch)
    assert sum(len(batch.labels) for batch in data.eval_batches("test", 2)) == data.facts["num_test"]


def test_an_object_that_lacks_a_member_does_not() -> None:
    assert not isinstance(object(), EvalData)
    assert not isinstance(object(), DataModule)
