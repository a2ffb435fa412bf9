"""Image-text retrieval: how often the caption of an image, or the image of a caption, is among the k most similar.

As CLIP (Radford et al., ICML 2021, https://arxiv.org/abs/2103.00020, Table 13) and the literature before it (Hodosh,
Young, Hockenmaier, JAIR 2013) report it, with equal scores counted as misses.
Letters: N images, M captions, D width, Q queries, C candidates.
"""

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from ssl_zoo.evaluators.base import EvalContext, frozen, warn_once
from ssl_zoo.evaluators.proportion import Proportion, hash_examples
from ssl_zoo.evaluators.zero_shot import require_towers

TIE = 1e-6
"""Cosines that are closer than this count as equal: they differ by the rounding of float32 only."""


@runtime_checkable
class HoldsCaptions(Protocol):
    """Data with captions of the images that are evaluated on."""

    def eval_captions(self, split: str) -> tuple[Tensor, Tensor]:
        """Token ids (M, L) int64 of the captions, and the index (M,) int64 of the image that each belongs to."""


def ranks(queries: Tensor, candidates: Tensor, relevant: Tensor) -> Tensor:
    """How many irrelevant candidates are at least as similar to each query as its most similar relevant one.

    A query is a hit at k if its rank is below k. A tie counts against it, so that no order of equals can make a hit.

    Args:
        queries: (Q, D) unit vectors.
        candidates: (C, D) unit vectors.
        relevant: (Q, C) bool, at least one per query.

    Returns:
        (Q,) int64.
    """
    chunks = []
    for rows, wanted in zip(queries.split(512), relevant.split(512), strict=True):
        cosine = rows @ candidates.T
        best = cosine.masked_fill(~wanted, -torch.inf).amax(dim=1, keepdim=True)
        chunks.append(((cosine > best - TIE) & ~wanted).sum(dim=1))
    return torch.cat(chunks)


class Retrieval:
    """Reports `retrieval/image_to_text/recall<k>` and `retrieval/text_to_image/recall<k>` on the test split.

    Image to text: the share of images of which any caption is among the k most similar captions. Text to image: the
    share of captions, each a query of its own, whose image is among the k most similar images. Captions with the same
    tokens belong to the images of all of them.
    """

    needs_labels = False

    def __init__(self, k: list[int]):
        """Keeps the settings.

        Args:
            k: how many of the most similar candidates count.

        Raises:
            ValueError: for a k below 1 or named twice.
        """
        if not k or min(k) < 1 or len(set(k)) < len(k):
            raise ValueError(f"evaluators.retrieval.k={k} must be one or more different numbers, each at least 1")
        self.k = k

    def __call__(self, context: EvalContext) -> dict[str, float]:
        """Recall in both directions; nothing, with a message, where the data has no test split.

        Raises:
            ValueError: when the method embeds no text, or the data has no captions.
        """
        method, data = require_towers(context.method, "retrieval"), context.data
        if not isinstance(data, HoldsCaptions):
            raise ValueError(
                "evaluators=[retrieval] needs images with captions: leave retrieval out, or choose data=captions"
            )
        if not data.facts["num_test"]:
            warn_once("retrieval skipped: this data has no test split; give data.splits.test")
            return {}

        # ---- Embeddings; captions with the same tokens have the same one, to the last bit ----
        ids, indices = data.eval_captions("test")
        if not len(ids):
            raise ValueError("evaluators=[retrieval]: all captions of the test split are empty. Leave retrieval out")
        distinct, which = ids.unique(dim=0, return_inverse=True)
        with frozen(context.method), context.precision():
            batches = distinct.to(context.device).split(context.batch_size)
            texts = torch.cat([method.embed_text(rows).float() for rows in batches]).cpu()[which]  # (M, D)
            images = context.collect("test", method.embed_image)
        if not (texts.isfinite().all() and images.x.isfinite().all()):
            raise FloatingPointError("the embeddings of the test split hold NaN or Inf")

        # ---- Which captions belong to which images, and the ranks in both directions ----
        owners = torch.searchsorted(images.indices, indices)
        belongs = torch.zeros(len(images.x), len(distinct), dtype=torch.bool)
        belongs[owners, which] = True
        relevant = belongs[:, which]  # (N, M)
        captioned = relevant.any(dim=1)  # images without any caption are candidates, not queries
        to_text = ranks(images.x[captioned], texts, relevant[captioned])
        to_image = ranks(texts, images.x, relevant.T)
        images_and_captions = hash_examples(ids, indices)
        found: dict[str, float] = {}
        for k in self.k:
            found[f"retrieval/image_to_text/recall{k}"] = Proportion.of(to_text < k, images_and_captions)
            # Not kept per query: several captions of one image are no independent examples.
            found[f"retrieval/text_to_image/recall{k}"] = Proportion((to_image < k).double().mean().item(), len(ids))
        return found
