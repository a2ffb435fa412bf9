from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import silhouette_score

from ssl_zoo.report import picture
from tests.evaluators.fakes import blobs
from tests.evaluators.test_few_labels import METRICS


def read(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"))


def test_bars_and_map(tmp_path: Path) -> None:
    x, y = blobs(60, 8, 3, 3.0)
    places = picture.place_features(x.numpy())
    assert silhouette_score(places, y) > 0.5, "classes stay together"
    (tmp_path / "report.png").write_bytes(picture.plot_run_picture(METRICS, "SimCLR", places, y, ["cat", "dog", "eel"]))
    both = read(tmp_path / "report.png")
    (tmp_path / "map.png").write_bytes(picture.plot_run_picture({}, "SimCLR", places, y, ["cat", "dog", "eel"]))
    alone = read(tmp_path / "map.png")
    assert both.shape[1] == 2 * alone.shape[1]
    for half in (both[:, : both.shape[1] // 2], both[:, both.shape[1] // 2 :]):
        assert len(np.unique(half.reshape(-1, 3), axis=0)) > 50, "there is something in it"


@pytest.mark.parametrize(("count", "classes"), [(6, 2), (60, 15), (90, 30)])
def test_few_points_and_many_classes(tmp_path: Path, count: int, classes: int) -> None:
    x, y = blobs(count, 8, classes, 3.0)
    places = picture.place_features(x.numpy()) if count == 6 else x[:, :2].numpy()
    assert np.isfinite(places).all()
    (tmp_path / "map.png").write_bytes(
        picture.plot_run_picture({}, "SimCLR", places, y, [f"class {i}" for i in range(classes)])
    )
    assert read(tmp_path / "map.png").std() > 1


def test_names_are_no_markup(tmp_path: Path) -> None:
    x, y = blobs(60, 8, 7, 3.0)
    names = ["$5_$10", "a^$b$", "_background_", "[red]", "100%", "猫", "bad\udcffname"]
    (tmp_path / "report.png").write_bytes(picture.plot_run_picture(METRICS, "Sim$C_LR$^", x[:, :2].numpy(), y, names))
    assert (tmp_path / "report.png").exists()
