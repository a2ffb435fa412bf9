"""Similar examples are close on the page, which holds all that it shows."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ssl_zoo.similarity import normalized
from ssl_zoo.tasks import map as task
from ssl_zoo.tasks.map import make_map, place_points
from tests.conftest import Ended
from tests.data.pictures import picture, write
from tests.report.test_map_page import data_of, decode
from tests.tasks.encoders import colour_encoder, saved_encoder, word_encoder


def test_groups_stay_apart_and_the_places_are_the_same_each_time() -> None:
    rng = np.random.default_rng(0)
    group = np.repeat([0, 1], 40)
    unit = normalized(rng.normal(size=(2, 16))[group] + 0.1 * rng.normal(size=(80, 16)))
    xy = place_points(unit)
    centres = [xy[group == g].mean(axis=0) for g in (0, 1)]
    nearest = np.stack([np.linalg.norm(xy - centre, axis=1) for centre in centres]).argmin(axis=0)
    assert (nearest == group).mean() == 1
    assert np.array_equal(xy, place_points(unit))


@pytest.mark.parametrize("count", [1, 2, 4, 5, 9])
def test_few_points(count: int) -> None:
    xy = place_points(normalized(np.random.default_rng(0).normal(size=(count, 6))))
    assert xy.shape == (count, 2)
    assert np.isfinite(xy).all()


def test_equal_vectors_have_a_place() -> None:
    assert np.isfinite(place_points(normalized(np.ones((30, 4))))).all()


def test_a_page_of_images(tmp_path: Path) -> None:
    for label in ("cat", "dog"):
        write(tmp_path / "pets" / label, 6, first=6 * (label == "dog"))
    (tmp_path / "pets" / "dog" / "<script>alert(1)<b>.png").write_bytes((tmp_path / "pets/dog/0007.png").read_bytes())
    path = make_map(colour_encoder(), tmp_path / "pets", tmp_path / "out", clusters=3)
    page = path.read_text()
    data = data_of(page)
    assert len(data["names"]) == len(decode(data["xy"])) / 2 == 13
    assert "dog/<script>alert(1)<b>.png" in data["names"]
    assert "<script>alert" not in page
    label, cluster = data["colourings"]
    assert (label["name"], label["classes"]) == ("label", ["cat", "dog"])
    assert decode(label["values"]).tolist() == [0] * 6 + [1] * 7
    assert cluster["classes"] == ["cluster 1", "cluster 2", "cluster 3"]
    assert len(data["pictures"]["sheets"]) == 1
    assert data["title"] == "pets"
    assert data["about"].startswith("13 images, by colours.")


def test_a_page_of_texts(tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("the movie was great\na bad film</script>\ngood one\n")
    data = data_of(make_map(word_encoder(tmp_path), tmp_path / "texts.txt", tmp_path / "out").read_text())
    assert data["texts"] == ["the movie was great", "a bad film</script>", "good one"]
    assert data["pictures"] is None
    assert [one["name"] for one in data["colourings"]] == ["cluster"]


def test_of_many_examples_some_are_shown_and_it_says_so(tmp_path: Path) -> None:
    write(tmp_path / "pets", 20)
    data = data_of(make_map(colour_encoder(), tmp_path / "pets", tmp_path / "out", points=6).read_text())
    assert "6 of 20 images, evenly spaced" in data["about"]
    assert data["names"] == [f"{i:04d}.png" for i in (0, 3, 7, 11, 15, 19)]


@pytest.mark.parametrize(("setting", "said"), [({"points": 0}, "map.points=0"), ({"clusters": 0}, "map.clusters=0")])
def test_wrong_numbers(setting: dict, said: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"{said}: give 1 to"):
        make_map(colour_encoder(), tmp_path, tmp_path / "out", **setting)


def test_the_command(cli: Callable[..., Ended], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task, "place_points", lambda unit: unit[:, :2])
    saved_encoder(tmp_path / "run")
    (tmp_path / "pets").mkdir()
    for i in range(12):
        picture(i, 30, 20).save(tmp_path / "pets" / f"{i}.png")
    ended = cli("task=map", "encoder=run", "data.path=pets", "hydra.run.dir=out", "trainer.accelerator=cpu")
    assert ended.status == 0, ended.err
    assert "out/map.html" in ended.out
    assert data_of((tmp_path / "out" / "map.html").read_text())["about"].startswith("12 images, by simclr resnet10t.")
    ended = cli("task=map", "encoder=run", "data.path=pets", "hydra.run.dir=new", "map.points=0")
    assert ended.status == 2
    assert "map.points=0: give 1 to 100,000" in ended.err
