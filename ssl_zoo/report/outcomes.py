"""correct.npz: the test examples that a run classified correctly, so that two runs can be compared example by example.

Beside results.json, and written before it. Its arrays, M being the number of metrics:

    metrics    (M,) str, their names, those before training under init/
    counts     (M,) int64, number of examples of each
    examples   (M,) str, a hash of the test examples and their order: only equal ones are paired
    bits/NAME  (ceil(count / 8),) uint8, one bit per example, 1 where it was right, from the highest bit on

A metric without outcomes (a mean over several draws, a perplexity) is not in it.
"""

import io
import math
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ssl_zoo import files
from ssl_zoo.evaluators.proportion import Proportion
from ssl_zoo.report.results import OUTCOMES_NAME

MAX_BYTES = 2**28
"""Upper limit for the size of the arrays together: 2 billion examples."""


class Outcomes(NamedTuple):
    """Which examples were right.

    Attributes:
        right: (n,) bool.
        examples: a hash of the examples and their order.
    """

    right: np.ndarray
    examples: str


def outcomes_of(metrics: Mapping[str, float], examples: str) -> dict[str, Outcomes]:
    """The outcomes that the metrics of a run carry.

    Args:
        metrics: by name.
        examples: hash of the labelled test split, for those that name no examples of their own.
    """
    return {
        key: Outcomes(value.right, value.examples or examples)
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
                found[str(name)] = Outcomes(np.unpackbits(bits, count=count).astype(bool), str(which))
    except FileNotFoundError:
        return {}
    except Exception as error:  # numpy and zipfile raise many kinds for a damaged file
        raise ValueError(f"{path}: damaged ({error}). Evaluate the run again, or delete the file") from error
    return found
