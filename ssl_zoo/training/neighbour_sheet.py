"""The sheet of nearest neighbours at the end of a run: it shows what is similar to the encoder, without any label."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ssl_zoo import files
from ssl_zoo.evaluators.base import EvalContext, Features
from ssl_zoo.report.display import warn_if_display_fails
from ssl_zoo.report.kept_features import evenly_spaced
from ssl_zoo.report.sheet import NUM_QUERIES, SHEET_NAME, SIDE, Picture, draw_sheet
from ssl_zoo.similarity import nearest_rows, normalized

log = logging.getLogger(__name__)

MAX_EXAMPLES = 2000
"""Images that neighbours are searched among."""


def show_neighbours(folder: Path, context: EvalContext) -> None:
    """Writes `neighbours.png`; the run is complete, so failures are only warnings, unless the disk refuses the file.

    Text has no sheet, and neither has a run whose evaluators extracted no features.

    Args:
        folder: the run folder.
        context: of the end of the run.
    """
    split = next((name for name in ("test", "train") if name in vars(context)), None)
    if split is None or context.data.facts["modality"] != "image":
        return
    sheet = b""
    with warn_if_display_fails("the sheet of neighbours"):
        sheet = run_sheet(context, split)
    if sheet:
        files.write_atomically(folder / SHEET_NAME, sheet)
        with warn_if_display_fails("where the sheet is"):
            log.info(f"nearest neighbours: {folder / SHEET_NAME}")


def run_sheet(context: EvalContext, split: str) -> bytes:
    """Queries among the evaluated images of a split, and their neighbours among them, as a PNG file.

    The queries are those of every run on the same examples, whatever its encoder, so that sheets can be compared.
    """
    features: Features = getattr(context, split)
    chosen = evenly_spaced(len(features.x), MAX_EXAMPLES)
    unit = normalized(features.x[chosen].numpy())
    queries = choose_queries(features.y[chosen].numpy(), NUM_QUERIES)
    found, cosines = nearest_rows(unit, unit[queries], NUM_QUERIES, queries)
    labels, names = features.y[chosen].tolist(), context.data.facts["class_names"]
    needed = sorted({*queries, *found.flatten().tolist()})
    images = dict(zip(needed, _images(context.data, split, features.indices[chosen[needed]]), strict=True))

    def picture(row: int, note: str, query: int | None = None) -> Picture:
        known = query is not None and min(labels[row], labels[query]) >= 0
        matches = labels[row] == labels[query] if query is not None and known else None
        return Picture(images[row], names[labels[row]] if labels[row] >= 0 else "", note, matches)

    sheet = [
        [picture(query, ""), *(picture(row, f"{cosine:.2f}", query) for row, cosine in zip(*its, strict=True))]
        for query, *its in zip(queries, found.tolist(), cosines.tolist(), strict=True)
    ]
    return draw_sheet(sheet, f"Nearest neighbours among {len(unit):,} images of the {split} split")


def choose_queries(labels: np.ndarray, count: int) -> list[int]:
    """At most `count` rows of labels (N,), evenly spaced in the order of the classes: of different classes, if enough.

    They depend on nothing that an encoder has computed.
    """
    by_class = labels.argsort(kind="stable")
    places = (np.arange(min(count, len(labels))) + 0.5) * len(labels) / min(count, len(labels))
    return sorted(by_class[places.astype(int)].tolist())


def _images(data: Any, split: str, indices: torch.Tensor) -> list[Image.Image]:
    """Images as the encoder saw them, in RGB; of other than 3 channels the first."""
    mean, std = (torch.tensor(data.facts[key])[:, None, None] for key in ("mean", "std"))
    images = []
    for batch in data.eval_batches(split, 64, indices):
        for view in batch.views[0].cpu():
            pixels = ((view * std + mean) * 255).round().clamp(0, 255).to(torch.uint8).numpy()
            shown = pixels.transpose(1, 2, 0) if len(pixels) == 3 else pixels[0]
            how = Image.Resampling.NEAREST if len(shown) < SIDE else Image.Resampling.BILINEAR
            images.append(Image.fromarray(shown).convert("RGB").resize((SIDE, SIDE), how))
    return images
