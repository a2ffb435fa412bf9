"""`task=embed`: the vectors of all examples of a data set, as one parquet file.

While it is made, complete parts lie in `embeddings.parts/`, so that a command that was killed goes on after the last.
"""

import json
import logging
import shutil
import tempfile
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from torch import Tensor

from ssl_zoo import files
from ssl_zoo.data.embeddings import (
    EMBEDDINGS_NAME,
    Embeddings,
    join_parts,
    read_about,
    read_embeddings,
    read_skipped,
    shape_of,
    write_part,
)
from ssl_zoo.data.examples import Example, Examples, check_present, describe, open_examples
from ssl_zoo.data.image.decode import UnreadableImage
from ssl_zoo.data.layout import abbreviate
from ssl_zoo.encoder import Encoder, hash_weights, load
from ssl_zoo.encoder_data import take_inputs
from ssl_zoo.evaluators.base import frozen
from ssl_zoo.training import environment, hardware, run_folder, transcript

log = logging.getLogger(__name__)

PARTS_NAME = "embeddings.parts"
ROWS_PER_PART = 1024
"""Examples between two points from which a killed command goes on; also the rows of a row group."""
TRIED_FIRST = 8
"""Images that are decoded before the work begins, to see whether they are of a kind that the encoder takes."""
_READING = ("path", "root", "image_column", "label_column", "caption_column", "name", "text_column", "documents")
"""Keys of `data` that say what the examples are; the encoder says the rest."""


def embed_data(
    encoder: Encoder | str | Path,
    data: str | Path | Examples,
    folder: str | Path | None = None,
    half: bool = False,
    batch_size: int = 64,
    on_error: str = "raise",
    max_skipped: float = 0.01,
    **reading: Any,
) -> Embeddings:
    """Embeds every image or text of a data set, in all its splits.

    Args:
        encoder: an encoder, or what `ssl_zoo.load` takes.
        data: a folder of images, a table, a text file, ..., or an open list of examples.
        folder: where `embeddings.parquet` is written, and where an interrupted call goes on; None: nowhere.
        half: whether the file has float16.
        batch_size: examples per forward pass.
        on_error: "raise" or "skip" unreadable images.
        max_skipped: maximum fraction that may be skipped.
        reading: see `open_examples`, such as `label_column="species"`.

    Raises:
        ValueError: for an encoder or data that cannot be used, or a folder that holds other embeddings.
    """
    encoder, examples = open_inputs(encoder, data, **reading)
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary) if folder is None else Path(folder)
        return read_embeddings(write_embeddings(encoder, examples, place, half, batch_size, on_error, max_skipped))


def open_inputs(encoder: Encoder | str | Path, data: str | Path | Examples, **reading: Any) -> tuple[Encoder, Examples]:
    """The encoder and the examples that a caller gives by name or as they are; see `embed_data`."""
    encoder = encoder if isinstance(encoder, Encoder) else load(encoder)
    return encoder, open_examples(encoder.modality, data, **reading) if isinstance(data, str | Path) else data


def write_embeddings(
    encoder: Encoder,
    examples: Examples,
    folder: Path,
    half: bool = False,
    batch_size: int = 64,
    on_error: str = "raise",
    max_skipped: float = 0.01,
) -> Path:
    """Writes `embeddings.parquet` in `folder`, or goes on with it; the memory needed does not grow with the data.

    Args, Raises: see `embed_data`.

    Returns:
        Its path. A file that is complete already is left as it is.
    """
    # ---- What the embeddings depend on, and whether the folder has those of something else ----
    path, parts = folder / EMBEDDINGS_NAME, folder / PARTS_NAME
    origin = {
        "version": 1,
        "encoder": encoder.manifest.get("weights_hash") or hash_weights(encoder.network.state_dict()),
        "input": encoder.inputs,
        "data": examples.fingerprint(),
        "half": half,
    }
    origin = json.loads(json.dumps(origin))
    if path.exists():
        _check_origin(folder, read_about(path), origin)
        return path
    if (parts / "origin.json").exists():
        _check_origin(folder, json.loads((parts / "origin.json").read_text(encoding="utf-8")), origin)
    check_present(examples, on_error)
    check_first(encoder, examples)

    # ---- Part by part, after the last complete one ----
    parts.mkdir(parents=True, exist_ok=True)
    files.write_atomically(parts / "origin.json", json.dumps(origin))
    skipped = _embed_parts(encoder, examples, parts, half, batch_size, on_error, max_skipped)

    # ---- One file ----
    about = {**origin, "path": str(examples.place), "modality": examples.modality, "skipped": len(skipped)}
    join_parts(path, sorted(parts.glob("*.parquet")), about)
    shutil.rmtree(parts)
    return path


def _check_origin(folder: Path, found: Mapping[str, Any], origin: Mapping[str, Any]) -> None:
    if different := [key for key in origin if found.get(key) != origin[key]]:
        raise ValueError(
            f"hydra.run.dir={folder}: holds embeddings made with another {' and '.join(different)}. "
            f"Give another folder, or delete {EMBEDDINGS_NAME} and {PARTS_NAME} in it"
        )


def check_first(encoder: Encoder, examples: Examples) -> None:
    """Raises ValueError if none of the first images can be read for this encoder, as with other channels."""
    first = list(islice(examples.read(), TRIED_FIRST))
    errors = [made for made in (_network_input(encoder, example) for example in first) if isinstance(made, str)]
    if first and len(errors) == len(first):
        raise ValueError(
            f"data.path={examples.place}: the encoder takes images of {encoder.inputs['in_chans']} channels, and none "
            f"of the first {len(first)} can be read as such: {errors[0].partition('. Give ')[0]}. "
            "Choose other data, or an encoder that was trained on such images"
        )


def _network_input(encoder: Encoder, example: Example) -> Tensor | str:
    """The input of the network, or why there is none."""
    try:
        return encoder.transform(example.load(), example.source)
    except UnreadableImage as error:
        return str(error)


def _embed_parts(
    encoder: Encoder,
    examples: Examples,
    parts: Path,
    half: bool,
    batch_size: int,
    on_error: str,
    max_skipped: float,
) -> list[str]:
    """Writes the parts that are not there yet; returns why examples were skipped, for each."""
    from rich.progress import MofNCompleteColumn, Progress, TimeElapsedColumn

    done = sorted(parts.glob("*.parquet"))
    skipped = [why for part in done for why in read_skipped(part)]
    start = len(done) * ROWS_PER_PART
    if done:
        log.info(f"{parts.parent}: goes on after {start:,} of {len(examples):,} examples")
    columns = (*Progress.get_default_columns(), MofNCompleteColumn(), TimeElapsedColumn())
    with frozen(encoder), ThreadPoolExecutor() as pool, Progress(*columns) as progress:
        bar = progress.add_task("embedding", total=len(examples), completed=start)
        for number, part in enumerate(_groups(examples.read(start), ROWS_PER_PART), start=len(done)):
            embedded, failed = [], []
            for rows, vectors, errors in _embed_part(encoder, part, batch_size, pool):
                embedded.append((rows, vectors))
                failed += errors
                if errors and on_error == "raise":
                    raise ValueError(f"{errors[0]}. Repair or remove the image, or give data.on_error=skip")
                progress.advance(bar, len(rows) + len(errors))
            skipped += failed
            if len(skipped) > max_skipped * len(examples):
                raise ValueError(
                    f"data.max_skipped={max_skipped}: {len(skipped)} of {len(examples):,} images cannot be read so "
                    f"far, and {int(max_skipped * len(examples))} may be skipped. Raise data.max_skipped, or repair "
                    f"{abbreviate(skipped)}"
                )
            write_part(parts / f"{number:06d}.parquet", part, embedded, failed, examples.have_paths, half)
    if skipped:
        log.warning(f"skipped {len(skipped):,} of {len(examples):,} images, unreadable: {abbreviate(skipped)}")
    return skipped


def _groups(examples: Iterator[Example], size: int) -> Iterator[list[Example]]:
    while group := list(islice(examples, size)):
        yield group


def _embed_part(
    encoder: Encoder, part: Sequence[Example], batch_size: int, pool: ThreadPoolExecutor
) -> Iterator[tuple[list[int], np.ndarray, list[str]]]:
    """Embeds examples in batches: positions in `part`, vectors (b, D) float32, and why others cannot be read."""
    order = list(range(len(part)))
    if encoder.modality == "text":  # texts of similar length need little padding
        order.sort(key=lambda i: len(str(part[i].load())))
    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    loading: deque[tuple[list[int], Iterator[Tensor | str]]] = deque()
    for coming in (*batches, []):  # one batch is decoded while the one before it is embedded
        loading.append((coming, pool.map(partial(_network_input, encoder), [part[i] for i in coming])))
        if len(loading) == 1:
            continue
        batch, loaded = loading.popleft()
        made = list(zip(batch, loaded, strict=True))
        inputs = {i: x for i, x in made if not isinstance(x, str)}
        vectors = np.empty((0, encoder.num_features), np.float32)
        if inputs:
            vectors = encoder(encoder.collate(list(inputs.values())).to(encoder.device)).float().cpu().numpy()
        if not np.isfinite(vectors).all():
            raise ValueError(f"encoder: its vector of {part[batch[0]].source}, or of one near it, is NaN or Inf")
        yield list(inputs), vectors, [x for _, x in made if isinstance(x, str)]


def open_task(cfg: DictConfig, folder: Path) -> tuple[Encoder, Examples]:
    """The encoder and the examples that a task names, checked against one another.

    Raises:
        ValueError: if one of the two is missing or cannot be used.
    """
    transcript.write_transcript(folder)
    if not isinstance(cfg.encoder, str):
        raise ValueError(
            f"task={cfg.task} needs encoder=<run folder, encoder file, timm:NAME or hf:NAME> and data.path=<your files>"
        )
    device = environment.device_type(cfg.trainer.accelerator)
    hardware.prepare_torch(device, "32-true")
    encoder = load(cfg.encoder).to(device)
    take_inputs(cfg, encoder, [str(o) for o in HydraConfig.get().overrides.task])
    reading = {key: cfg.data[key] for key in _READING if key in cfg.data}
    examples = open_examples(encoder.modality, **reading)
    log.info(f"{cfg.task}: {describe(examples)} of {examples.place}, {encoder.num_features} features")
    return encoder, examples


def embed_for_task(cfg: DictConfig, folder: Path, encoder: Encoder, examples: Examples) -> Path:
    """Writes the embeddings that a task needs, as the configuration says, into its folder."""
    return write_embeddings(
        encoder,
        examples,
        folder,
        cfg.half,
        cfg.data.batch_size,
        cfg.data.get("on_error", "raise"),
        cfg.data.get("max_skipped", 0.0),
    )


def embed(cfg: DictConfig, folder: Path) -> None:
    """Writes `embeddings.parquet`: one vector per image or text of `data`, by the encoder `encoder`."""
    with run_folder.lock_folder(folder):
        encoder, examples = open_task(cfg, folder)
        path = embed_for_task(cfg, folder, encoder, examples)
    rows, width = shape_of(path)
    kind = "float16" if cfg.half else "float32"
    log.info(f"embeddings: {path} ({rows:,} x {width} {kind}, {path.stat().st_size / 1e6:,.1f} MB)")
