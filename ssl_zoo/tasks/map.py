"""`task=map`: a page that shows all examples of a data set as points, similar ones close to one another."""

import logging
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig
from PIL import Image, ImageOps

from ssl_zoo import files
from ssl_zoo.data.embeddings import Embeddings, read_embeddings
from ssl_zoo.data.examples import Example, Examples, thumbnail
from ssl_zoo.encoder import Encoder
from ssl_zoo.report.map_page import (
    Colouring,
    SmallPictures,
    colour_by,
    map_page,
    pack_pictures,
    picture_side,
    shorten_texts,
)
from ssl_zoo.similarity import clusters as find_clusters
from ssl_zoo.similarity import normalized
from ssl_zoo.tasks.embed import embed_data, embed_for_task, open_inputs, open_task
from ssl_zoo.training import run_folder

log = logging.getLogger(__name__)

MAP_NAME = "map.html"
COMPONENTS = 50
"""Principal components that t-SNE starts from."""
PERPLEXITY = 30
MOST_POINTS = 100_000


def make_map(
    encoder: Encoder | str | Path,
    data: str | Path | Examples,
    folder: str | Path,
    points: int = 10_000,
    clusters: int = 10,
    half: bool = False,
    batch_size: int = 64,
    on_error: str = "raise",
    max_skipped: float = 0.01,
    **reading: Any,
) -> Path:
    """Writes `map.html`: one page, without a request to any network, of the examples of a data set.

    Args:
        encoder: an encoder, or what `ssl_zoo.load` takes.
        data: a folder of images, a table, a text file, ..., or an open list of examples.
        folder: where the page and the embeddings are written.
        points: maximum number of examples on the map; of more, so many evenly spaced ones are shown.
        clusters: number of groups of similar examples that are coloured, by k-means.
        half: see `embed_data`, as the following ones.
        batch_size: examples per forward pass.
        on_error: "raise" or "skip" unreadable images.
        max_skipped: maximum fraction that may be skipped.
        reading: see `open_examples`.

    Returns:
        The path of the page.

    Raises:
        ValueError: for an encoder or data that cannot be used.
    """
    check_map(points, clusters)
    encoder, examples = open_inputs(encoder, data, **reading)
    embeddings = embed_data(encoder, examples, folder, half, batch_size, on_error, max_skipped)
    return write_map(Path(folder) / MAP_NAME, encoder, examples, embeddings, points, clusters)


def check_map(points: int, clusters: int) -> None:
    """Raises ValueError for numbers of points or clusters that no map can have."""
    if not 1 <= points <= MOST_POINTS:
        raise ValueError(f"map.points={points}: give 1 to {MOST_POINTS:,}")
    if not 1 <= clusters <= 100:
        raise ValueError(f"map.clusters={clusters}: give 1 to 100")


def write_map(
    path: Path, encoder: Encoder, examples: Examples, embeddings: Embeddings, points: int, clusters: int
) -> Path:
    """Places the examples and writes the page.

    Args:
        path: of the page.
        encoder: the encoder of the embeddings.
        examples: the data that they are of.
        embeddings: at least one.
        points: see `make_map`.
        clusters: see `make_map`.

    Returns:
        `path`.
    """
    rows = np.unique(np.linspace(0, len(embeddings) - 1, points).astype(int)).tolist()
    unit = normalized(embeddings.vectors[rows])
    log.info(f"map: t-SNE of {len(rows):,} examples ...")
    started = time.perf_counter()
    xy = place_points(unit)
    log.info(f"map: placed in {time.perf_counter() - started:.1f} s")

    labels, splits = [embeddings.labels[row] for row in rows], [embeddings.splits[row] for row in rows]
    colourings = [colour_by("label", labels)] if any(label is not None for label in labels) else []
    members, centres = find_clusters(unit, clusters)
    colourings.append(Colouring("cluster", members, [f"cluster {i + 1}" for i in range(len(centres))]))
    if len(set(splits)) > 1:
        colourings.append(colour_by("split", splits))

    found = examples.find({embeddings.key(row) for row in rows})
    shown = [found[embeddings.key(row)] for row in rows]
    pictures = texts = None
    if examples.modality == "text":
        texts = shorten_texts([str(example.load()) for example in shown])
    else:
        pictures = _small_pictures(encoder, shown)
    page = map_page(
        Path(examples.place).name or examples.place,
        _about(encoder, examples, len(rows), len(embeddings)),
        xy,
        [embeddings.name(row) for row in rows],
        colourings,
        pictures,
        texts,
    )
    files.write_atomically(path, page)
    return path


def _about(encoder: Encoder, examples: Examples, shown: int, count: int) -> str:
    """One line on what the map shows."""
    what = f"{shown:,} {examples.modality}{'s' * (shown != 1)}"
    if shown < count:
        what = f"{shown:,} of {count:,} {examples.modality}s, evenly spaced"
    training = encoder.manifest.get("training", {})
    network = encoder.manifest["arguments"].get("name") or type(encoder.network).__name__
    made_by = " ".join(filter(None, [training.get("method"), network]))
    return f"{what}, by {made_by}. t-SNE: near points are similar; distances between groups mean little."


def place_points(unit: np.ndarray) -> np.ndarray:
    """Places vectors in a plane: principal components, then t-SNE; the same each time.

    Args:
        unit: (N, D), of length 1.

    Returns:
        (N, 2).
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    count, width = unit.shape
    if count == 1:
        return np.zeros((1, 2))
    reduced = PCA(min(COMPONENTS, count, width), random_state=0).fit_transform(unit)
    if count < 5 or not reduced.std():  # too few for t-SNE, or all the same
        return np.pad(reduced[:, :2], ((0, 0), (0, max(0, 2 - reduced.shape[1]))))
    perplexity = min(PERPLEXITY, (count - 1) / 3)
    places: np.ndarray = TSNE(perplexity=perplexity, init="pca", random_state=0).fit_transform(reduced)
    return places


def _small_pictures(encoder: Encoder, examples: list[Example]) -> SmallPictures:
    """Small pictures of the examples, decoded in several threads."""
    from rich.progress import track

    side, bits = picture_side(len(examples)), encoder.inputs.get("bits") or 16

    def small(example: Example) -> Image.Image:
        encoded: Any = example.load()
        whole = thumbnail(encoded, example.source, encoder.inputs["in_chans"], bits, 2 * side)
        return ImageOps.fit(whole, (side, side))

    images: list[Image.Image] = []
    with ThreadPoolExecutor() as pool:
        for start in track(range(0, len(examples), 256), "pictures"):
            images += pool.map(small, examples[start : start + 256])
    return pack_pictures(images)


def map(cfg: DictConfig, folder: Path) -> None:
    """Writes `map.html`, a page on which similar examples of `data` lie close to one another."""
    check_map(cfg.map.points, cfg.map.clusters)
    with run_folder.lock_folder(folder):
        encoder, examples = open_task(cfg, folder)
        embeddings = read_embeddings(embed_for_task(cfg, folder, encoder, examples))
        path = write_map(folder / MAP_NAME, encoder, examples, embeddings, cfg.map.points, cfg.map.clusters)
    log.info(f"map: {path} ({path.stat().st_size / 1e6:,.1f} MB). Open it in a browser")
