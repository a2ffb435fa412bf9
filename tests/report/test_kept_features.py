"""features.npz: what is written is read to float16, whatever its size; a damaged file is named."""

import contextlib
from pathlib import Path

import numpy as np
import pytest

from ssl_zoo.report.kept_features import FEATURES_NAME, KeptFeatures, evenly_spaced, read_features, write_features


@pytest.mark.parametrize(("shift", "size"), [(0.0, 1.0), (1e3, 1e-2), (-5.0, 1e6), (0.0, 1e-9), (3.0, 0.0)])
def test_what_is_written_is_read(shift: float, size: float, tmp_path: Path) -> None:
    x = (shift + size * np.random.default_rng(0).standard_normal((50, 8))).astype(np.float32)
    told = KeptFeatures(x, "a" * 32, np.arange(50) % 3 - 1, ["cat", "dog"], x[:, :2] if size == 1 else None)
    write_features(tmp_path, told)
    found = read_features(tmp_path)
    assert found is not None
    spread = np.abs(x - x.mean(axis=0)).max()
    assert np.abs(found.x - x).max() <= spread / 1000 + 1e-6 * abs(shift)
    assert (found.examples, found.names) == (told.examples, told.names)
    assert (found.y == told.y).all()
    assert (found.places is None) == (told.places is None)


def test_it_is_as_small_as_said(tmp_path: Path) -> None:
    x = np.random.default_rng(0).standard_normal((1000, 512)).astype(np.float32)
    write_features(tmp_path, KeptFeatures(x, "a", np.arange(1000), [str(n) for n in range(1000)], x[:, :2]))
    assert (tmp_path / FEATURES_NAME).stat().st_size < 1.1e6


@pytest.mark.parametrize(("total", "expected"), [(1, 1), (7, 7), (1000, 1000), (1001, 1000), (123_456, 1000)])
def test_rows_are_evenly_spaced(total: int, expected: int) -> None:
    rows = evenly_spaced(total)
    assert (len(rows), rows[0], rows[-1]) == (expected, 0, total - 1)
    assert np.ptp(np.diff(rows)) <= 1 if expected > 1 else True


def test_damaged_files_are_named(tmp_path: Path) -> None:
    assert read_features(tmp_path) is None
    write_features(tmp_path, KeptFeatures(np.ones((9, 2), np.float32), "a", np.zeros(9), ["cat"]))
    whole = (tmp_path / FEATURES_NAME).read_bytes()
    for content in (b"", whole[:-30], whole.replace(b"scale", b"scal_")):
        (tmp_path / FEATURES_NAME).write_bytes(content)
        with pytest.raises(ValueError, match=r"features\.npz: damaged"):
            read_features(tmp_path)
    for place in range(0, len(whole), 11):
        (tmp_path / FEATURES_NAME).write_bytes(whole[:place] + bytes([whole[place] ^ 255]) + whole[place + 1 :])
        with contextlib.suppress(ValueError):
            found = read_features(tmp_path)
            assert found is None or found.x.shape == (9, 2)
    for labels in (np.zeros(8), np.full(9, 1)):  # one is missing, or has no name
        wrong = KeptFeatures(np.ones((9, 2), np.float32), "a", labels, ["cat"])
        write_features(tmp_path, wrong)
        with pytest.raises(ValueError, match=r"features\.npz: damaged"):
            read_features(tmp_path)
