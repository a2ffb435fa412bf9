"""Sets of sentences besides the run's own data: where they are, their columns, and their vectors."""

import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ssl_zoo.evaluators.base import EvalContext, frozen, warn_once
from ssl_zoo.evaluators.zero_shot import Tokenises, TwoTowers


class SetSplit(NamedTuple):
    """One split of a set of sentences, in the Hub's layout: its files are called `<split>-*.parquet`.

    Attributes:
        folder: of the set.
        split: its name, "*" for all of them.
    """

    folder: Path
    split: str

    def files(self) -> list[Path]:
        """The files of the split, in the folder or one below it."""
        return sorted({*self.folder.rglob(f"{self.split}-*.parquet"), *self.folder.rglob(f"{self.split}.parquet")})


def find_sets(
    key: str, known: Mapping[str, tuple[str, str]], sets: Sequence[str] | None, root: str | None
) -> dict[str, SetSplit]:
    """Where each set is.

    Args:
        key: of the evaluator, such as "evaluators.transfer".
        known: for each set its folder below the root, and a split that must be there.
        sets: those that are wanted, all of which must be there; None: every known one that is, and a message names the
            others.
        root: the folder that they lie in; None: `$SSL_ZOO_DATA`.

    Raises:
        ValueError: for an unknown set, one that is named and not found, no root, or a root without any of them.
    """
    if unknown := [name for name in sets or () if name not in known]:
        raise ValueError(f"{key}.sets: {unknown[0]} is unknown. Give some of {', '.join(known)}, or null for all")
    if sets is not None and len(set(sets)) < max(len(sets), 1):
        raise ValueError(f"{key}.sets={sets}: give one or more different sets, or null for all that are found")
    base = root or os.environ.get("SSL_ZOO_DATA")
    if not base:
        raise ValueError(f"{key}.root=null: give the folder that holds the sets, or set SSL_ZOO_DATA to it")
    places = {name: SetSplit(Path(base).expanduser() / known[name][0], known[name][1]) for name in sets or known}
    missing = [name for name, place in places.items() if not place.files()]
    if missing and (sets is not None or len(missing) == len(places)):
        folder, split = places[missing[0]]
        raise ValueError(
            f"{key}.sets: {missing[0]} is not there: no files {split}-*.parquet in {folder}. "
            f"Put the set there, name others, or give {key}.root"
        )
    if missing:
        warn_once(f"{key.rpartition('.')[2]}: not below {base}, so skipped: {', '.join(missing)}")
    return {name: place for name, place in places.items() if name not in missing}


def read_columns(place: SetSplit, needed: Collection[str], optional: Collection[str] = ()) -> dict[str, list]:
    """Columns of a split, by name.

    Args:
        place: the split.
        needed: names of columns.
        optional: further columns, which are read if they are there.

    Raises:
        ValueError: for a missing split or column, or a damaged file.
    """
    import pyarrow.parquet  # type: ignore[import-untyped]  # slow to import

    files = place.files()
    if not files:
        raise ValueError(f"{place.folder}: no files {place.split}-*.parquet. Give a set that has this split")
    columns: dict[str, list] = {}
    for file in files:
        try:
            names = pyarrow.parquet.read_schema(file).names
            wanted = [*needed, *(name for name in optional if name in names)]
            if lacking := [name for name in wanted if name not in names]:
                raise ValueError(f"{file}: no column {lacking[0]}. It has {', '.join(names)}; rename one")
            table = pyarrow.parquet.read_table(file, columns=wanted)
        except (OSError, pyarrow.ArrowException) as error:
            raise ValueError(f"{file}: cannot be read ({str(error).splitlines()[0]}). Replace the file") from error
        for name in wanted:
            columns.setdefault(name, []).extend(table.column(name).to_pylist())
    return columns


def embed_texts(key: str, context: EvalContext, texts: Sequence[str]) -> Tensor:
    """Vectors of the text encoder that is evaluated: that of the text tower, where a method has one.

    Args:
        key: name of the evaluator, for messages.
        context: the context of the evaluation.
        texts: n texts.

    Returns:
        (n, D) float32, on the CPU.

    Raises:
        ValueError: when the encoder takes no text.
        FloatingPointError: when it returns NaN or Inf.
    """
    method, data = context.method, context.data
    encode: Any = method.embed_text if isinstance(method, TwoTowers) else method.encoder
    if not isinstance(data, Tokenises) or (data.facts["modality"] != "text" and not isinstance(method, TwoTowers)):
        raise ValueError(f"evaluators=[{key}] needs a text encoder, and this run has none: leave {key} out")
    distinct = sorted(set(texts), key=lambda text: (len(text), text))  # batches of similar length need little padding
    vectors = []
    with frozen(method), context.precision():
        for start in range(0, len(distinct), context.batch_size):
            ids = data.tokenise(distinct[start : start + context.batch_size])
            vectors.append(encode(ids.to(context.device)).float().cpu())
    x = torch.cat(vectors)
    if not x.isfinite().all():
        raise FloatingPointError(f"{key}: the encoder's features hold NaN or Inf")
    place = {text: row for row, text in enumerate(distinct)}
    return x[[place[text] for text in texts]]
