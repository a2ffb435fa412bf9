"""correct.npz: the test examples that a run classified correctly, so that two runs can be compared example by example.

Beside results.json, and written before it. Its arrays, M being the number of metrics:

    metrics       (M,) str, their names, those before training under init/
    counts        (M,) int64, number of examples of each
    examples      (M,) str, a hash of the test examples and their order: only equal ones are paired
    bits/NAME     (ceil(count / 8),) uint8, one bit per example, 1 where it was right, from the highest bit on
    labels/HASH   (count,) unsigned integers, the classes of the examples of that hash
    classes/HASH  (C,) str, the names of the classes

A metric without outcomes (a mean over several draws, a perplexity) is not in it. Labels are kept of the labelled test
split alone, and files of earlier versions have none.
"""

import io
import math
import zipfile
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ssl_zoo import files
from ssl_zoo.evaluators.proportion import Proportion
from ssl_zoo.report.results import OUTCOMES_NAME

MAX_BYTES = 2**28
"""Upper limit for the size of the arrays together: 2 billion examples."""


class ClassLabels(NamedTuple):
    """The classes of the test examples.

    Attributes:
        y: (n,) integers from 0 on.
        names: of the classes.
    """

    y: np.ndarray
    names: list[str]


class Outcomes(NamedTuple):
    """Which examples were right.

    Attributes:
        right: (n,) bool.
        examples: a hash of the examples and their order.
        labels: their classes, None where they were not kept.
    """

    right: np.ndarray
    examples: str
    labels: ClassLabels | None = None


def outcomes_of(metrics: Mapping[str, float], examples: str, labels: ClassLabels | None = None) -> dict[str, Outcomes]:
    """The outcomes that the metrics of a run carry.

    Args:
        metrics: by name.
        examples: hash of the labelled test split, for those that name no examples of their own.
        labels: of that split; None where they are not known.
    """
    return {
        key: Outcomes(value.right, value.examples or examples, None if value.examples else labels)
        for key, value in metrics.items()
        if isinstance(value, Proportion) and value.right is not None
    }


def write_outcomes(folder: Path, outcomes: Mapping[str, Outcomes]) -> None:
    """Writes `<folder>/correct.npz` atomically; without any outcome there is no such file afterwards."""
    path = folder / OUTCOMES_NAME
    if not outcomes:
        path.unlink(missing_ok=True)
        return
    content = io.BytesIO()
    arrays: dict[str, Any] = {f"bits/{key}": np.packbits(found.right) for key, found in outcomes.items()}
    arrays["metrics"] = np.array(list(outcomes))
    arrays["counts"] = np.array([len(found.right) for found in outcomes.values()])
    arrays["examples"] = np.array([found.examples for found in outcomes.values()])
    for found in outcomes.values():
        if found.labels is not None:
            y = np.asarray(found.labels.y)
            arrays[f"labels/{found.examples}"] = y.astype(np.min_scalar_type(y.max(initial=0)))
            arrays[f"classes/{found.examples}"] = np.array(found.labels.names, dtype=str)
    np.savez_compressed(content, **arrays)
    files.write_atomically(path, content.getvalue())


def read_outcomes(folder: Path) -> dict[str, Outcomes]:
    """Reads what `write_outcomes` wrote; {} if there is no file, as for runs of earlier versions.

    Raises:
        ValueError: for a file that is damaged or too large; names it.
    """
    path = folder / OUTCOMES_NAME
    try:
        with zipfile.ZipFile(path) as packed:
            if sum(info.file_size for info in packed.infolist()) > MAX_BYTES:
                raise ValueError(f"larger than {MAX_BYTES} bytes")
        with np.load(path, allow_pickle=False) as file:
            names, counts, examples = (file[key].tolist() for key in ("metrics", "counts", "examples"))
            found = {}
            for name, count, which in zip(names, counts, examples, strict=True):
                bits = file[f"bits/{name}"]
                if len(bits) != math.ceil(count / 8):
                    raise ValueError(f"{name} has {len(bits)} bytes for {count} examples")
                right = np.unpackbits(bits, count=count).astype(bool)
                found[str(name)] = Outcomes(right, str(which), _read_labels(file, str(which), count))
    except FileNotFoundError:
        return {}
    except Exception as error:  # numpy and zipfile raise many kinds for a damaged file
        raise ValueError(f"{path}: damaged ({error}). Evaluate the run again, or delete the file") from error
    return found


def _read_labels(file: Any, which: str, count: int) -> ClassLabels | None:
    """The labels of the examples of a hash, None if the file has none."""
    if f"labels/{which}" not in file:
        return None
    labels = ClassLabels(file[f"labels/{which}"].astype(np.int64), file[f"classes/{which}"].astype(str).tolist())
    if labels.y.shape != (count,) or labels.y.max(initial=-1) >= len(labels.names):
        raise ValueError(f"{len(labels.y)} labels of {len(labels.names)} classes for {count} examples")
    return labels


def outcomes_of_run(run: Mapping[str, Any], metric: str) -> Outcomes | None:
    """What a run has kept of a metric; None if nothing, or if it is not that of its results, as after a crash.

    Args:
        run: its results, with its "folder".
        metric: that it has measured.

    Raises:
        ValueError: for a damaged file.
    """
    file = Path(run["folder"]) / OUTCOMES_NAME
    if not file.is_file():
        return None
    found = _read(file.parent, file.stat().st_mtime_ns).get(metric)
    if found is None or not len(found.right) or abs(float(np.mean(found.right)) - run["metrics"][metric]) > 1e-6:
        return None
    return found


@lru_cache(maxsize=256)
def _read(folder: Path, changed: int) -> dict[str, Outcomes]:
    """The outcomes in a folder whose file was `changed` at that time."""
    return read_outcomes(folder)
