"""Rows are compared on the same examples, and what cannot be compared is named."""

from pathlib import Path

import numpy as np
import pytest

from ssl_zoo.report import representations
from ssl_zoo.report.cka import cka
from ssl_zoo.report.comparison import Comparison
from ssl_zoo.report.kept_features import read_features
from ssl_zoo.report.report import compare_folders
from tests.report.records import save_features, save_run

METHODS = ("simclr", "vicreg", "byol")


def sweep(folder: Path, seeds: int = 3) -> Comparison:
    for number, method in enumerate(METHODS):
        for seed in range(seeds):
            save_run(folder / f"{method}{seed}", method, seed)
            save_features(folder / f"{method}{seed}", 10 * number + seed)
    return compare_folders(folder).comparison


def test_means_over_pairs_of_runs(tmp_path: Path) -> None:
    found = sweep(tmp_path).representations
    assert found is not None
    names = [row.names["method"] for row in found.rows]
    kept = {(name, seed): read_features(tmp_path / f"{name}{seed}") for name in names for seed in (0, 1)}
    pair = [cka(kept[names[0], a].x, kept[names[2], b].x) for a in (0, 1) for b in (0, 1)]  # type: ignore[union-attr]
    own = cka(kept[names[1], 0].x, kept[names[1], 1].x)  # type: ignore[union-attr]
    assert found.cka[0, 2] == found.cka[2, 0] == pytest.approx(np.mean(pair), abs=1e-5)
    assert found.cka[1, 1] == pytest.approx(own, abs=1e-5)
    assert (found.examples, found.notes) == (60, [])


def test_one_run_has_no_diagonal(tmp_path: Path) -> None:
    found = sweep(tmp_path, seeds=1).representations
    assert found is not None
    assert np.isnan(np.diag(found.cka)).all()
    assert np.isfinite(found.cka[np.triu_indices(3, 1)]).all()


def test_what_is_left_out_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(representations, "MAX_ROWS", 2)
    monkeypatch.setattr(representations, "MAX_MAPS", 1)
    sweep(tmp_path, seeds=1)
    for method in ("dino", "moco", "mae"):
        save_run(tmp_path / method, method, 0)
    save_features(tmp_path / "moco", 0, examples="others")
    (tmp_path / "mae" / "features.npz").write_bytes(b"x")
    found = compare_folders(tmp_path).comparison.representations
    assert found is not None
    assert found.cka.shape == (2, 2)
    assert len(found.maps) == 1
    text = " ".join(found.notes)
    assert "No features were kept by dino." in text
    assert "Of other examples, so not compared: moco." in text
    assert f"mae is left out: {tmp_path / 'mae' / 'features.npz'}: damaged" in text
    assert "The first 2 of 3 rows." in text
    assert "Maps of the first 1 of 2 rows." in text


def test_without_features_there_is_nothing(tmp_path: Path) -> None:
    save_run(tmp_path / "a", "simclr", 0)
    assert compare_folders(tmp_path).comparison.representations is None


def test_maps_are_turned_to_the_first_and_show_the_same_examples(tmp_path: Path) -> None:
    first = sweep(tmp_path, seeds=1).representations
    assert first is not None
    places = first.maps[0].places
    turn = np.array([[0.6, -0.8], [-0.8, -0.6]])  # with a reflection
    assert representations._fit_map(7 * places @ turn + 5, places) == pytest.approx(places, abs=1e-5)
    assert np.abs(places).max() == pytest.approx(1.0)
    assert {len(one.places) for one in first.maps} == {60}
    assert len(first.y) == 60
    assert (representations._fit_map(np.ones((5, 2)), None) == 0).all()
