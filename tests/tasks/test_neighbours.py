"""The most similar examples come first, whatever the query is, and a query that cannot be used ends at once."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas
import pytest
from PIL import Image

from ssl_zoo.data.examples import open_examples
from ssl_zoo.tasks.embed import embed_data
from ssl_zoo.tasks.neighbours import find_near_duplicates, find_neighbours, find_outliers
from tests.conftest import Ended
from tests.data.pictures import write
from tests.tasks.encoders import colour_encoder, saved_encoder, word_encoder

COLOURS = {
    "red": (200, 20, 20),
    "rose": (200, 60, 60),
    "blue": (10, 30, 190),
    "sky": (30, 60, 220),
    "grass": (20, 180, 20),
}


@pytest.fixture
def swatches(tmp_path: Path) -> Path:
    folder = tmp_path / "swatches"
    folder.mkdir()
    for name, colour in COLOURS.items():
        Image.new("RGB", (8, 8), colour).save(folder / f"{name}.png")
    return folder


def cosine(one: str, other: str) -> float:
    a, b = np.array(COLOURS[one]), np.array(COLOURS[other])
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def test_a_row_finds_its_like_but_not_itself(swatches: Path) -> None:
    row = sorted(COLOURS).index("red")
    for query in (row, str(row)):
        found = find_neighbours(colour_encoder(), swatches, query, k=2)
        assert [neighbour.name for neighbour in found] == ["rose.png", "sky.png"]
        assert found[0].cosine == pytest.approx(cosine("red", "rose"), abs=1e-3)
        assert [neighbour.rank for neighbour in found] == [1, 2]


def test_an_image_finds_itself_first(swatches: Path) -> None:
    for query in (swatches / "blue.png", "blue.png"):  # a name may be one in the data
        found = find_neighbours(colour_encoder(), swatches, query, k=9)
        assert [neighbour.name for neighbour in found][:2] == ["blue.png", "sky.png"]
        assert found[0].cosine == pytest.approx(1)
        assert len(found) == 5


def test_a_text_finds_texts(tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("the movie was great\n\na bad film\ngood one\n")
    found = find_neighbours(
        word_encoder(tmp_path), tmp_path / "texts.txt", "bad bad film", k=1, folder=tmp_path / "out"
    )
    assert (found[0].row, found[0].name) == (1, "train 2")
    table = pandas.read_csv(tmp_path / "out" / "neighbours.csv")
    assert table["text"].tolist() == ["a bad film"]
    assert not (tmp_path / "out" / "neighbours.png").exists()


def test_without_a_query_there_is_a_sheet(tmp_path: Path) -> None:
    for label in ("cat", "dog"):
        write(tmp_path / "pets" / label, 10, first=10 * (label == "dog"))
    found = find_neighbours(colour_encoder(), tmp_path / "pets", folder=tmp_path / "out")
    queries = {neighbour.query for neighbour in found}
    assert len(queries) == 8
    assert len(found) == 64
    assert all(int(neighbour.query) != neighbour.row for neighbour in found)
    sheet = Image.open(io.BytesIO((tmp_path / "out" / "neighbours.png").read_bytes()))
    assert sheet.width > 1000
    assert len(np.unique(np.asarray(sheet.convert("RGB")).reshape(-1, 3), axis=0)) > 500
    assert found == find_neighbours(colour_encoder(), tmp_path / "pets"), "the same choice each time"
    table = pandas.read_csv(tmp_path / "out" / "neighbours.csv")
    assert list(table) == ["query", "rank", "row", "name", "split", "label", "cosine"]
    assert table["name"].tolist() == [neighbour.name for neighbour in found]


def test_duplicates_and_outliers(swatches: Path) -> None:
    (swatches / "red_copy.png").write_bytes((swatches / "red.png").read_bytes())
    Image.new("RGB", (9, 9), COLOURS["red"]).save(swatches / "red_larger.png")
    examples = open_examples("image", swatches)
    embeddings = embed_data(colour_encoder(), examples)
    pairs = {(pair.name, pair.other_name): pair.exact for pair in find_near_duplicates(embeddings, examples, 0.9999)}
    assert pairs == {
        ("red.png", "red_copy.png"): True,
        ("red.png", "red_larger.png"): False,
        ("red_copy.png", "red_larger.png"): False,
    }
    outliers = find_outliers(embeddings, 2, k=2)
    assert outliers[0].name == "grass.png"
    assert outliers[0].mean_cosine < outliers[1].mean_cosine


@pytest.mark.parametrize(
    ("query", "k", "said"),
    [
        (5, 8, r"query=5: there is no such row\. Give one from 0 to 4"),
        ("-1", 8, r"query=-1: there is no such row"),
        ("gone.png", 8, r"query=gone\.png: no such image file, here or in .*Give one, or a row from 0 to 4"),
        ("notes.txt", 8, r"query=notes\.txt: cannot be used \(.*not an image file\)"),
        (0, 0, r"neighbours\.k=0: give 1 or more"),
    ],
)
def test_a_query_that_cannot_be_used(query: str | int, k: int, said: str, swatches: Path, tmp_path: Path) -> None:
    (swatches / "notes.txt").write_text("no image")
    encoder = colour_encoder()
    with pytest.raises(ValueError, match=said):
        find_neighbours(encoder, swatches, query, k, tmp_path / "out")
    assert encoder.network.images == 0
    assert not (tmp_path / "out").exists()


def test_the_command(swatches: Path, cli: Callable[..., Ended], tmp_path: Path) -> None:
    saved_encoder(tmp_path / "run")
    command = ("task=neighbours", "encoder=run", "data.path=swatches", "hydra.run.dir=out", "trainer.accelerator=cpu")
    ended = cli(*command, "query=swatches/red.png", "neighbours.duplicates=0.5", "neighbours.outliers=2")
    assert ended.status == 0, ended.err
    assert "red.png" in ended.out
    written = {path.name for path in (tmp_path / "out").iterdir() if not path.name.startswith(".")}
    assert written >= {"embeddings.parquet", "neighbours.csv", "neighbours.png", "duplicates.csv", "outliers.csv"}
    assert len(pandas.read_csv(tmp_path / "out" / "outliers.csv")) == 2
    assert "embedding" not in cli(*command).out, "the vectors are there already"
    for wrong, said in (
        ("query=99", "query=99: there is no such row"),
        ("neighbours.duplicates=2", "neighbours.duplicates=2: give a cosine"),
        ("neighbours.outliers=0", "neighbours.outliers=0: give a whole number"),
    ):
        ended = cli(*command, wrong)
        assert ended.status == 2
        assert f"error: {said}" in ended.err.splitlines()[-1]
