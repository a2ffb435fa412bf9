"""The file of embeddings: one row per example, in a table that every parquet reader opens.

    embeddings.parquet    path (of image files), index, split, label (if there are any), vector (D floats)

Its metadata says, under "ssl_zoo", which encoder and which data it is of. While it is made it is a folder of parts,
each complete, which become its row groups.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]

from ssl_zoo import files
from ssl_zoo.data.examples import Example

EMBEDDINGS_NAME = "embeddings.parquet"


class Embeddings(NamedTuple):
    """The content of an embeddings file.

    Attributes:
        vectors: (N, D) float32.
        splits: names of the split of each example.
        indices: (N,) int64, positions in their splits.
        paths: of image files, relative to the data; None for texts and for rows of a table.
        labels: names of classes, None where unknown.
        about: encoder, data and version that they were made with.
    """

    vectors: np.ndarray
    splits: list[str]
    indices: np.ndarray
    paths: list[str] | None
    labels: list[str | None]
    about: dict[str, Any]

    def __len__(self) -> int:
        return len(self.splits)

    def name(self, row: int) -> str:
        """The path of an example, or its split and index."""
        return self.paths[row] if self.paths else f"{self.splits[row]} {self.indices[row]}"

    def key(self, row: int) -> tuple[str, int]:
        """What identifies an example in its data set; see `Example`."""
        return self.splits[row], int(self.indices[row])


def read_embeddings(file: str | Path) -> Embeddings:
    """Reads an embeddings file, or the one in a folder.

    Raises:
        ValueError: if it is damaged or was not written by `task=embed`.
    """
    path = Path(file) / EMBEDDINGS_NAME if Path(file).is_dir() else Path(file)
    try:
        about = read_about(path)
        table = pq.read_table(path)
    except (OSError, pa.ArrowException, KeyError, ValueError) as error:
        raise ValueError(f"{path}: damaged, or no file of task=embed ({error}). Delete it and make it anew") from error
    flat = table["vector"].combine_chunks().flatten().to_numpy()
    names = table.column_names
    return Embeddings(
        flat.reshape(len(table), -1).astype(np.float32, copy=False),
        table["split"].to_pylist(),
        table["index"].to_numpy(),
        table["path"].to_pylist() if "path" in names else None,
        table["label"].to_pylist() if "label" in names else [None] * len(table),
        about,
    )


def read_about(path: Path) -> dict[str, Any]:
    """What an embeddings file was made with."""
    found = json.loads(pq.read_schema(path).metadata[b"ssl_zoo"])
    assert isinstance(found, dict)
    return found


def write_part(
    path: Path,
    part: Sequence[Example],
    embedded: Sequence[tuple[list[int], np.ndarray]],
    skipped: list[str],
    have_paths: bool,
    half: bool,
) -> None:
    """Writes the rows that come from one stretch of the examples.

    Args:
        path: of the part.
        part: the examples, n of them.
        embedded: positions among them, and their vectors (b, D) float32.
        skipped: why the others could not be embedded.
        have_paths: see `Examples`.
        half: whether to store float16.
    """
    rows = np.concatenate([np.array(rows, np.int64) for rows, _ in embedded])
    order = rows.argsort()
    vectors = np.concatenate([vectors for _, vectors in embedded])[order].astype(np.float16 if half else np.float32)
    kept = [part[row] for row in rows[order]]
    columns: dict[str, Any] = {"path": pa.array([example.path for example in kept], pa.string())} if have_paths else {}
    columns |= {
        "index": pa.array([example.index for example in kept], pa.int64()),
        "split": pa.array([example.split for example in kept], pa.string()),
        "label": pa.array([example.label for example in kept], pa.string()),
        "vector": pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), vectors.shape[1]),
    }
    table = pa.table(columns).replace_schema_metadata({"skipped": json.dumps(skipped)})
    with files.open_atomically(path) as file:
        pq.write_table(table, file)


def join_parts(path: Path, parts: Sequence[Path], about: Mapping[str, Any]) -> None:
    """Copies the parts into one file, a row group each; the column of labels only if there are any."""
    labelled = any(len(column := pq.read_table(part)["label"]) > column.null_count for part in parts)
    schema = pq.read_schema(parts[0])
    if not labelled:
        schema = schema.remove(schema.get_field_index("label"))
    schema = schema.with_metadata({"ssl_zoo": json.dumps(dict(about))})
    with files.open_atomically(path) as file, pq.ParquetWriter(file, schema) as writer:
        for part in parts:
            writer.write_table(pq.read_table(part, columns=schema.names).cast(schema))


def read_skipped(part: Path) -> list[str]:
    """Why examples of a part were skipped."""
    found = json.loads(pq.read_schema(part).metadata[b"skipped"])
    assert isinstance(found, list)
    return found


def shape_of(path: Path) -> tuple[int, int]:
    """Rows and width of the vectors of an embeddings file."""
    return pq.read_metadata(path).num_rows, pq.read_schema(path).field("vector").type.list_size
