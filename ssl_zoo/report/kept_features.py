"""features.npz: features of a small sample of the test examples, so that representations of runs can be compared.

Beside results.json, and written before it. At most `NUM_KEPT` evenly spaced examples of the test split, or of the
training split where there is no other, 2 bytes per number: 1 MB where the encoder's output is 512 wide. Its arrays:

    x          (n, D) float16, the features less `mean`, divided by `scale`, the largest of their magnitudes
    mean       (D,) float32, the mean feature
    scale      () float32
    examples   () str, a hash of the split that they are of: samples of equal hash and n are of the same examples
    y          (n,) int64, labels, -1 where unknown
    classes    (C,) str, the names of the classes
    places     (n, 2) float32, their places in the map of report.png by t-SNE; (0, 2) where none was drawn

Only numpy is imported, so that it can be read without importing torch.
"""

import io
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ssl_zoo import files

FEATURES_NAME = "features.npz"
NUM_KEPT = 1000
"""Examples, at most."""
MAX_FEATURE_BYTES = 2**28
"""Upper limit for the size of the arrays together."""


class KeptFeatures(NamedTuple):
    """Features of a sample.

    Attributes:
        x: (n, D) float32.
        examples: a hash of the split that they are of.
        y: (n,) int64, labels, -1 where unknown.
        names: of the classes.
        places: (n, 2) float32 of a map, None where none was drawn.
    """

    x: np.ndarray
    examples: str
    y: np.ndarray
    names: list[str]
    places: np.ndarray | None = None


def evenly_spaced(total: int, count: int = NUM_KEPT) -> np.ndarray:
    """At most `count` different rows out of `total`, int64, the first and the last among them."""
    return np.unique(np.linspace(0, total - 1, min(count, total)).round().astype(np.int64))


def write_features(folder: Path, kept: KeptFeatures) -> None:
    """Writes `<folder>/features.npz` atomically."""
    mean = kept.x.mean(axis=0, dtype=np.float64).astype(np.float32)
    centred = kept.x - mean
    scale = np.float32(np.abs(centred).max(initial=0.0) or 1.0)
    content = io.BytesIO()
    np.savez_compressed(
        content,
        x=(centred / scale).astype(np.float16),
        mean=mean,
        scale=scale,
        examples=np.array(kept.examples),
        y=kept.y.astype(np.int64),
        classes=np.array(kept.names, dtype=str),
        places=np.zeros((0, 2), np.float32) if kept.places is None else kept.places.astype(np.float32),
    )
    files.write_atomically(folder / FEATURES_NAME, content.getvalue())


def read_features(folder: Path) -> KeptFeatures | None:
    """Reads what `write_features` wrote; None if there is no file, as for runs of earlier versions.

    Raises:
        ValueError: for a file that is damaged or too large; names it.
    """
    path = folder / FEATURES_NAME
    try:
        with zipfile.ZipFile(path) as packed:
            if sum(info.file_size for info in packed.infolist()) > MAX_FEATURE_BYTES:
                raise ValueError(f"larger than {MAX_FEATURE_BYTES} bytes")
        with np.load(path, allow_pickle=False) as file:
            x = file["x"].astype(np.float32) * np.float32(file["scale"]) + file["mean"].astype(np.float32)
            y, names, places = file["y"].astype(np.int64), file["classes"].astype(str).tolist(), file["places"]
            kept = KeptFeatures(x, str(file["examples"]), y, names, places.astype(np.float32) if len(places) else None)
        shapes = [kept.x.shape[:1], kept.y.shape] + ([] if kept.places is None else [kept.places.shape[:1]])
        if kept.x.ndim != 2 or len(set(shapes)) > 1 or kept.y.max(initial=-1) >= max(len(names), 1):
            raise ValueError(f"features {kept.x.shape}, labels {kept.y.shape}, places {places.shape}")
        if not np.isfinite(kept.x).all() or (kept.places is not None and not np.isfinite(kept.places).all()):
            raise ValueError("numbers that are not finite")
    except FileNotFoundError:
        return None
    except Exception as error:  # numpy and zipfile raise many kinds for a damaged file
        raise ValueError(f"{path}: damaged ({error}). Delete the file") from error
    return kept
